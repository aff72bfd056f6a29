"""Training a student block by block: each learns one part of the teacher's way from input to output, on its own.

Romero et al.: FitNets: Hints for Thin Deep Nets. arXiv:1412.6550, equation 3, for the comparison; Wang et al.:
Progressive Blockwise Knowledge Distillation for Neural Network Acceleration. IJCAI 2018, for blocks one after the
other. There a block reads what the network before it puts out. With ``input: teacher`` it reads what the teacher's
block reads, as in Li et al.: Blockwisely Supervised Neural Architecture Search with Knowledge Distillation.
arXiv:1911.13053, equation 4, so that no block waits for another and mistakes do not add up.

Students of other widths have a space of their own at a cut, so two 1x1 convolutions go with each cut: one from the
student's map to the teacher's, to compare them; one from the teacher's to the student's, fitted to the student's own
map by least squares, to show the next block what it will read in the end. Therefore both are dropped when the stage
is over. No gradient crosses a cut, and the last block, from the last cut to the output, learns from the stage's losses.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from distill.batch import Batch
from distill.cuts import Cuts
from distill.errors import RecipeError
from distill.losses._pooling import pool_to_smaller
from distill.losses.fitnet import as_map
from distill.taps import Features, Taps

Map = Float[Tensor, "batch _ _ _"]


class Blocks(nn.Module):
    """The cuts of one stage, and how a student runs with them.

    Args:
        spec: the stage's section.
        student: the student's maps of one batch at its cuts.
        teacher: the teacher's maps of the same batch at its cuts.
        head: whether the last block has something to learn from: task or losses.

    Raises:
        RecipeError: what is cut is no map.
    """

    def __init__(self, spec: Cuts, student: Features, teacher: Features, *, head: bool = True) -> None:
        super().__init__()
        self.spec = spec
        pairs = list(zip(spec.student, spec.teacher, strict=True))
        for ours, theirs in pairs:
            for path, feature in ((ours, student[ours]), (theirs, teacher[theirs])):
                if feature.dim() not in (2, 4):
                    raise RecipeError(f"blocks: '{path}' puts out {tuple(feature.shape)}, but a cut needs a map")
        shows_teacher = spec.input != "student"
        self.cuts = nn.ModuleList(
            Cut(as_map(student[ours]), as_map(teacher[theirs]), shows_teacher=shows_teacher) for ours, theirs in pairs
        )
        self.count = len(pairs) + head

    def forward(
        self, student: Taps, teacher: Features, batch: Batch, progress: float
    ) -> tuple[Any, Features, dict[str, Tensor]]:
        """One pass of the student, every block reading what the recipe says.

        Args:
            student: the tapped student.
            teacher: the teacher's maps at the cuts.
            batch: what both were given.
            progress: the part of the stage that is done, from 0 to 1.

        Returns:
            The output, or None where the last block has no turn; the student's taps, those at cuts as it put them out;
            the error of every block that has its turn, and how far each input is from the student's own map.
        """
        turns = self._turns(progress)
        with ExitStack() as around:
            wake = around.enter_context(_asleep(student.model)) if turns[0] else _awake
            crossing = _Pass(self, teacher, self._share(progress), turns, wake)
            for number, path in enumerate(self.spec.student):
                hook = partial(crossing.cross, number, path)
                around.enter_context(student.model.get_submodule(path).register_forward_hook(hook))
            try:
                output, features = student(batch.inputs)
            except _NothingLeftError:
                output, features = None, {}
        return output, features | crossing.own, crossing.values

    def _turns(self, progress: float) -> range:
        """Which blocks learn now, counted from 0."""
        if self.spec.order == "parallel":
            return range(self.count)
        now = int(progress * self.count)
        return range(now, now + 1)

    def _share(self, progress: float) -> float:
        """The probability that a sample reads the teacher's map."""
        match self.spec.input:
            case "teacher":
                return 1.0
            case "student":
                return 0.0
            case "mixed":
                return self.spec.start + progress * (self.spec.end - self.spec.start)


class Cut(nn.Module):
    """Where one block ends and the next begins; without adapters where both networks have as many channels.

    Errors are fractions of the target's variance around the means of its channels: 1 is no better than those means.
    """

    def __init__(self, student: Map, teacher: Map, *, shows_teacher: bool) -> None:
        super().__init__()
        ours, theirs = student.shape[1], teacher.shape[1]
        adapts = ours != theirs
        # Batch norm lets the output reach the teacher's scale at any learning rate, as in `fitnet`.
        self.to_teacher = (
            nn.Sequential(nn.Conv2d(ours, theirs, kernel_size=1, bias=False), nn.BatchNorm2d(theirs))
            if adapts
            else None
        )
        self.to_student = nn.Conv2d(theirs, ours, kernel_size=1) if adapts and shows_teacher else None
        self.positive = bool((student >= 0).all())

    def error(self, student: Tensor, teacher: Tensor) -> Float[Tensor, ""]:
        """Of the block before the cut. Maps of different sizes are compared at the smaller one's."""
        image = as_map(student) if self.to_teacher is None else self.to_teacher(as_map(student))
        return _unexplained(*pool_to_smaller(image, as_map(teacher)))

    def shown(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The teacher's map as the student would put it out: what the block after the cut reads."""
        # Pooling to a larger size repeats pixels.
        height, width = as_map(student).shape[2:]
        image = F.adaptive_avg_pool2d(as_map(teacher), (height, width))
        if self.to_student is not None:
            image = self.to_student(image)
            image = image.relu() if self.positive else image
        return image.reshape(student.shape)


@dataclass
class _Pass:
    """One forward pass of the student over its cuts.

    ``share`` is the probability of the teacher's map, ``turns`` are the blocks that learn; ``wake`` is called where
    the first of them begins.
    """

    blocks: Blocks
    teacher: Features
    share: float
    turns: range
    wake: Callable[[], None]
    own: Features = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)

    def cross(self, number: int, path: str, _module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        """A forward hook: what the next block reads in place of ``output``."""
        self.own[path] = output
        told = self.teacher[self.blocks.spec.teacher[number]]
        cut, weight = cast(Cut, self.blocks.cuts[number]), self.blocks.spec.weight
        if number in self.turns:
            self.values[f"block{number + 1}"] = weight * cut.error(output, told)
        if number == self.turns[-1]:
            raise _NothingLeftError
        if number + 1 == self.turns[0]:
            self.wake()
        student = output.detach()
        if self.share == 0:
            return student
        teacher = cut.shown(student, told)
        if cut.to_student is not None and torch.is_grad_enabled():
            self.values[f"input{number + 2}"] = weight * _unexplained(as_map(teacher), as_map(student))
        chosen = torch.rand(len(student), device=student.device) < self.share
        return torch.where(chosen.view(-1, *[1] * (student.dim() - 1)), teacher.detach(), student)


class _NothingLeftError(Exception):
    """No block after this cut has its turn: ends the pass."""


def _awake() -> None:
    """Nothing sleeps."""


@contextmanager
def _asleep(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Layers leave no gradients and keep their batch statistics, until the function that this yields is called."""
    learning = [module for module in model.modules() if module.training]

    def wake() -> None:
        torch.set_grad_enabled(True)
        for module in learning:
            module.training = True

    model.eval()
    with torch.no_grad():
        try:
            yield wake
        finally:
            wake()


def _unexplained(student: Map, teacher: Map) -> Float[Tensor, ""]:
    error = (student - teacher).square().mean()
    return error / (teacher.var(dim=(0, 2, 3), correction=0).mean() + 1e-6)
