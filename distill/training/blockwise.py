"""A student trained block by block against its teacher's feature maps; see `distill.training.blocks`."""

from collections.abc import Mapping

from torch import Tensor, nn

from distill.batch import Batch
from distill.models.taps import Taps
from distill.recipe.schema import Cuts, Loss
from distill.training.blocks import Blocks
from distill.training.method import Setting
from distill.training.plain import Plain


class Blockwise(Plain):
    """Every block learns to output the teacher's map at its end; the last one learns from task and losses.

    Args:
        student: the network to train.
        teacher: the network whose maps are learned.
        losses: the stage's, their taps written out.
        setting: see `Method`.
        cuts: where both networks are cut.
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module | None, losses: Mapping[str, Loss], setting: Setting, cuts: Cuts
    ) -> None:
        super().__init__(student, teacher, losses, setting, cuts.teacher)
        _, student_maps = Taps(student, cuts.student)(setting.example.inputs)
        head = bool(losses or self.task_weight)
        self.blocks = Blocks(cuts, student_maps, self.example_features, head=head)

    def step(self, batch: Batch, epoch: float, progress: float) -> dict[str, Tensor]:
        teacher = self.teacher(batch) if self.teacher else {}
        with self.dropping():
            output, student, values = self.blocks(self.student, teacher, batch, progress)
        if output is None:  # it is not the last block's turn
            return values
        values |= self.task_terms(self.student, output, student, batch)
        return values | self.loss_terms(student, teacher, batch, epoch)

    def to_compile(self) -> list[nn.Module]:
        """Not the student: every step puts other hooks into it."""
        return [self.teacher] if self.teacher else []
