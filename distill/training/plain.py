"""One student, trained on labels, on a teacher's outputs and feature maps, or on both."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from distill.batch import Batch
from distill.models.taps import Features
from distill.recipe.schema import Loss
from distill.training.loss_terms import bind, unique
from distill.training.method import Method, Setting
from distill.training.teacher import Teacher


class Plain(Method):
    """Supervised training, distillation, or their sum.

    Args:
        student: the network to train.
        teacher: the network to learn from, or None.
        losses: the stage's, their taps written out.
        setting: see `Method`.
        cuts: further taps of the teacher.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        losses: Mapping[str, Loss],
        setting: Setting,
        cuts: Sequence[str] = (),
    ) -> None:
        super().__init__(student, losses, setting)
        paths = unique([*(loss.teacher for loss in losses.values()), list(cuts)])
        statistics = setting.stage.teacher_bn == "train"
        live = None
        if teacher and paths:
            live = Teacher(teacher, paths, parts=self.task.parts, batch_statistics=statistics)
        _, student_features = self.student(setting.example.inputs)
        self.example_features: Features = live(setting.example) if live else {}
        injectable = {**setting.injectable, "student_model": student, "teacher_model": teacher}
        self.terms = bind(losses, student_features, self.example_features, setting.example, injectable)
        self.teacher = setting.cached(live) if live else None

    def step(self, batch: Batch, epoch: float, progress: float) -> dict[str, Tensor]:
        teacher = self.teacher(batch) if self.teacher else {}
        with self.dropping():
            output, student = self.student(batch.inputs)
        return self.task_terms(self.student, output, student, batch) | self.loss_terms(student, teacher, batch, epoch)

    def to_compile(self) -> list[nn.Module]:
        return [self.student, *([self.teacher] if self.teacher else [])]
