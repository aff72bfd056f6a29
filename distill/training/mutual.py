"""Two students that teach each other: Zhang et al., Deep Mutual Learning. arXiv:1706.00384, section 2.2.

Both learn in the same step from the outputs that the other had before it; the authors let the second one see what the
first has just learned.
"""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from distill.batch import Batch
from distill.recipe.schema import Loss
from distill.training.loss_terms import bind, unique
from distill.training.method import Method, Setting
from distill.training.output_parts import PartTaps

OTHER = {"student": "teacher", "teacher": "student"}


class Mutual(Method):
    """A student and its peer, each with the other in the place of a teacher.

    Args:
        student: the network to keep.
        peer: the network that learns beside it, and is then left.
        losses: the stage's, their taps written out for the student; the peer has them mirrored.
        setting: see `Method`.
    """

    teacher = None

    def __init__(self, student: nn.Module, peer: nn.Module, losses: Mapping[str, Loss], setting: Setting) -> None:
        super().__init__(student, losses, setting)
        example = setting.example
        mirrored = {key: mirror(spec) for key, spec in losses.items()}
        self.peer = PartTaps(peer.eval(), unique(spec.student for spec in mirrored.values()), self.task.parts)
        _, student_features = self.student(example.inputs)
        _, peer_features = self.peer(example.inputs)
        mine = {**setting.injectable, "student_model": student, "teacher_model": peer}
        its = {**setting.injectable, "student_model": peer, "teacher_model": student}
        self.peer_terms = bind(mirrored, peer_features, student_features, example, its)
        self.terms = bind(losses, student_features, peer_features, example, mine)

    def step(self, batch: Batch, epoch: float, progress: float) -> dict[str, Tensor]:
        peer_output, peer = self.peer(batch.inputs)
        with self.dropping():
            output, student = self.student(batch.inputs)
        values = self.task_terms(self.student, output, student, batch) | self.loss_terms(student, peer, batch, epoch)
        fixed = {path: feature.detach() for path, feature in student.items()}
        own = self.task_terms(self.peer, peer_output, peer, batch)
        own |= {key: term(peer, fixed, batch, epoch) for key, term in self.peer_terms.items()}
        return values | {f"peer_{name}": value for name, value in own.items()}

    def to_compile(self) -> list[nn.Module]:
        return [self.student, self.peer]


def mirror(loss: Loss) -> Loss:
    """The entry as the peer has it: the networks change places. One that reads no teacher reads the peer's own maps."""
    if not loss.teacher:
        return loss
    layout = {OTHER[role]: layout for role, layout in loss.layout.items()}
    return replace(loss, student=loss.teacher, teacher=loss.student, layout=layout)
