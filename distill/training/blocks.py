"""Blockwise training: each block of a student learns, on its own, to compute what one part of the teacher does.

Romero et al.: FitNets: Hints for Thin Deep Nets. arXiv:1412.6550, equation 3, for the comparison; Wang et al.:
Progressive Blockwise Knowledge Distillation for Neural Network Acceleration. IJCAI 2018, for blocks one after the
other. There a block reads the output of the network before it. With ``input: teacher`` it reads what the teacher's
block reads, as in Li et al.: Blockwisely Supervised Neural Architecture Search with Knowledge Distillation.
arXiv:1911.13053, so that no block waits for another and errors do not add up.

Students of other widths have another space at a cut. One 1x1 convolution brings the teacher's map there, where the
block before the cut is compared with it and the block after the cut reads it; a second one brings it back, and the two
learn that nothing is lost, as the paraphraser does in Kim et al.: Paraphrasing Complex Network. arXiv:1802.04977,
section 3.1. So a block learns to output exactly what the next one has learned to read, and adapters are dropped
after training. (FitNets' regressor goes from the student's map to the teacher's, which leaves the student a space
of its own. A way back, fitted to it by least squares, explained 1 and 31 % of the variance of what the next
blocks would read: after three epochs of blocks from ResNet-20 to ShuffleNetV2 the network had an accuracy of 7 % on
Fashion-MNIST, with the shared space 46 %.)
No gradient crosses a cut; the last block, from the last cut to the output, learns from the stage's losses.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from distill.batch import Batch
from distill.errors import RecipeError
from distill.models.feature_maps import as_map
from distill.models.taps import Features, Taps
from distill.recipe.schema import Cuts

Map = Float[Tensor, "batch _ _ _"]


class Blocks(nn.Module):
    """The cuts of one stage, and how a student runs with them.

    Args:
        spec: the stage's section.
        student: the student's maps of one batch at its cuts.
        teacher: the teacher's maps of the same batch at its cuts.
        head: whether there is a loss for the last block: the task's or another one.

    Raises:
        RecipeError: a cut is not at a map.
    """

    def __init__(self, spec: Cuts, student: Features, teacher: Features, *, head: bool = True) -> None:
        super().__init__()
        self.spec = spec
        pairs = list(zip(spec.student, spec.teacher, strict=True))
        for path, feature in [(p, student[p]) for p in spec.student] + [(p, teacher[p]) for p in spec.teacher]:
            if feature.dim() not in (2, 4):
                raise RecipeError(f"blocks: '{path}' outputs {tuple(feature.shape)}, but a cut needs a map")
        self.cuts = nn.ModuleList(Cut(as_map(student[a]), as_map(teacher[b])) for a, b in pairs)
        self.count = len(pairs) + head

    def forward(
        self, student: Taps, teacher: Features, batch: Batch, progress: float
    ) -> tuple[Any, Features, dict[str, Tensor]]:
        """One pass of the student, every block reading what the recipe says.

        Args:
            student: the tapped student.
            teacher: the teacher's maps at the cuts.
            batch: the inputs of both networks.
            progress: the part of the stage that is done, from 0 to 1.

        Returns:
            The output, or None where the last block has no turn; the student's taps, those at cuts before they are
            replaced; the error of every block that has its turn, and of the adapter at its end.
        """
        turns = self._turns(progress)
        with ExitStack() as around:
            activate = around.enter_context(_inactive(student.model)) if turns[0] else _always_active
            crossing = _Pass(self, teacher, self._share(progress), turns, activate)
            for number, path in enumerate(self.spec.student):
                hook = partial(crossing.cross, number, path)
                around.enter_context(student.model.get_submodule(path).register_forward_hook(hook))
            try:
                output, features = student(batch.inputs)
            except _LastBlockError:
                output, features = None, {}
        return output, features | crossing.own, crossing.values

    def _turns(self, progress: float) -> range:
        """Which blocks learn now, counted from 0."""
        if self.spec.order == "parallel":
            return range(self.count)
        turn = int(progress * self.count)
        return range(turn, turn + 1)

    def _share(self, progress: float) -> float:
        """The probability that a sample reads the teacher's map."""
        if self.spec.order == "progressive":
            progress = progress * self.count % 1  # of the turn
        match self.spec.input:
            case "teacher":
                return 1.0
            case "student":
                return 0.0
            case "mixed":
                return self.spec.start + progress * (self.spec.end - self.spec.start)


class Cut(nn.Module):
    """The output that the block before a cut learns, and the block after it reads; an adapter where widths differ."""

    def __init__(self, student: Map, teacher: Map) -> None:
        super().__init__()
        own, taught = student.shape[1], teacher.shape[1]
        self.size = (student.shape[2], student.shape[3])
        self.encoder = self.decoder = None
        if own != taught:
            # As after a new layer of the student: normalised channels, without negative values if the student has none.
            layers = [nn.Conv2d(taught, own, kernel_size=1, bias=False), nn.BatchNorm2d(own, affine=False)]
            self.encoder = nn.Sequential(*layers, *([nn.ReLU()] if (student >= 0).all() else []))
            self.decoder = nn.Conv2d(own, taught, kernel_size=1)

    def forward(self, teacher: Map) -> tuple[Map, Float[Tensor, ""] | None]:
        """The teacher's map in the student's size and number of channels, and the relative error of its way back."""
        teacher = F.adaptive_avg_pool2d(teacher, self.size)  # to a larger size, it repeats pixels
        if self.encoder is None or self.decoder is None:
            return teacher, None
        encoded = self.encoder(teacher)
        return encoded.detach(), relative_error(self.decoder(encoded), teacher)


@dataclass
class _Pass:
    """One forward pass of the student over its cuts.

    ``share`` is the probability of the teacher's map, ``turns`` are the blocks that learn; ``activate`` is called where
    the first of them begins.
    """

    blocks: Blocks
    teacher: Features
    share: float
    turns: range
    activate: Callable[[], None]
    own: Features = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)

    def cross(self, number: int, path: str, _module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        """A forward hook: what the next block reads in place of ``output``."""
        self.own[path] = output
        target, lost = self.blocks.cuts[number](as_map(self.teacher[self.blocks.spec.teacher[number]]))
        if number in self.turns:
            errors = {"block": relative_error(as_map(output), target), "adapter": lost}
            weight = self.blocks.spec.weight
            self.values |= {f"{key}{number + 1}": weight * error for key, error in errors.items() if error is not None}
        if number == self.turns[-1]:
            raise _LastBlockError
        if number + 1 == self.turns[0]:
            self.activate()
        shown = torch.rand(len(output), *[1] * (output.dim() - 1), device=output.device) < self.share
        return torch.where(shown, target.reshape(output.shape), output.detach())


class _LastBlockError(Exception):
    """No block after this cut has its turn: ends the pass."""


def _always_active() -> None:
    """Nothing sleeps."""


@contextmanager
def _inactive(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Layers leave no gradients and keep their batch statistics, until the function that this yields is called."""
    learning = [module for module in model.modules() if module.training]

    def activate() -> None:
        torch.set_grad_enabled(True)
        for module in learning:
            module.training = True

    model.eval()
    with torch.no_grad():
        try:
            yield activate
        finally:
            activate()


def relative_error(estimate: Map, target: Map) -> Float[Tensor, ""]:
    """The squared error as a fraction of the target's variance around the means of its channels.

    0 is a perfect estimate, 1 is no better than those means. Maps of all scales count alike.
    """
    error = (estimate - target).square().mean()
    return error / (target.var(dim=(0, 2, 3), correction=0).mean() + 1e-6)
