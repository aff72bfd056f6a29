"""Kim, Ahn & Oh: NestedNet: Learning Nested Sparse Structures in Deep Neural Networks. arXiv:1712.03781, section 3: one
set of weights is trained to be several networks, each inside the next.

`nested_level` takes one of them out. Departs from the paper: which blocks, channels or weights are of a level is not
learned beforehand but follows from their place or their size in every step, and levels have no classifiers of their own
but a part of one; a level with coarse labels is compared with sums of that one's probabilities. Batch statistics are
the whole network's; `nested_level` finds a level's own.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from distill.losses import loss
from distill.losses._divergence import kl, softened
from distill.models.channels.nested import (
    Masks,
    Nest,
    block_masks,
    largest_masks,
    leading_masks,
    removable_blocks,
    spare_blocks,
)
from distill.models.channels.sizes import sizes_of_copy
from distill.models.copied import copied
from distill.registry.ranges import NonNegative, Temperature

Groups = list[list[int]]
"""The classes of each coarse class."""


@loss("nestednet")
class NestedNet(nn.Module):
    """The mean cross-entropy of all levels, the whole network's among them: train with ``task_weight: 0``.

    Args:
        student_model: the network that is being trained.
        levels: the part of each layer that belongs to each inner network, above 0 and below 1; without any, a quarter
            and a half.
        nest: what the parts are of: ``channels``, the first ones, so that a level is a narrower network;
            ``connections``, the largest weights; or ``layers``, the first residual blocks of each stage, so that a
            level is a shallower network.
        soft: how much inner networks also learn from the whole one's soft targets, at this ``temperature``.
        temperature: divides the logits of both.
        coarse: level -> groups of classes, each class in one of them. That level learns to tell these groups apart,
            and its probabilities are to be summed over them.

    Raises:
        RecipeError: there are no blocks to take out.
        ValueError: a level is out of range, or groups are of no level or not of all classes.
    """

    def __init__(
        self,
        student_model: nn.Module,
        *,
        levels: list[float] | None = None,
        nest: Nest = "channels",
        soft: NonNegative = 0.0,
        temperature: Temperature = 4.0,
        coarse: dict[float, Groups] | None = None,
    ) -> None:
        super().__init__()
        self.levels = sorted(levels or [0.25, 0.5])
        if not 0 < self.levels[0] <= self.levels[-1] < 1:
            raise ValueError(
                f"nestednet's levels are above 0 and below 1, not {self.levels}; the whole network is another"
            )
        self.coarse = dict(coarse or {})
        if unknown := self.coarse.keys() - set(self.levels):
            raise ValueError(f"nestednet's coarse classes are of levels {sorted(unknown)}, but there are {self.levels}")
        self.network = (student_model,)  # in a tuple: its parameters are not this loss's
        self.nest = nest
        self.soft, self.temperature = soft, temperature
        self.fixed: list[Masks] = []

    def forward(
        self,
        student: Float[Tensor, "batch classes"],
        labels: Int[Tensor, " batch"],
        inputs: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, ""]:
        (model,) = self.network
        values = [F.cross_entropy(student, labels)]
        for level, masks in zip(self.levels, self.masks(inputs), strict=True):
            values.append(self._inner(level, masked(model, masks, inputs), student.detach(), labels))
        return torch.stack(values).mean()

    def masks(self, inputs: Float[Tensor, "batch channels height width"]) -> list[Masks]:
        """Of every level, fewest first; those of the largest weights are as the weights are now."""
        (model,) = self.network
        if self.nest == "connections":
            return [largest_masks(model, level) for level in self.levels]
        if not self.fixed and self.nest == "layers":
            blocks = removable_blocks(copied(model).eval(), inputs[:1])
            self.fixed = [block_masks(model, spare_blocks(blocks, level)) for level in self.levels]
        elif not self.fixed:
            sizes = sizes_of_copy(model, inputs[:1])
            self.fixed = [leading_masks(sizes, level) for level in self.levels]
        self.fixed = [{name: mask.to(inputs.device) for name, mask in masks.items()} for masks in self.fixed]
        return self.fixed

    def _inner(
        self,
        level: float,
        logits: Float[Tensor, "batch classes"],
        whole: Float[Tensor, "batch classes"],
        labels: Int[Tensor, " batch"],
    ) -> Float[Tensor, ""]:
        """What one level has to learn, from the labels and from the whole network's logits."""
        of_level, of_whole = (softened(one, self.temperature) for one in (logits, whole))
        if level in self.coarse:
            members = memberships(self.coarse[level], logits)
            logits, of_level, of_whole = (merged(one, members) for one in (logits, of_level, of_whole))
            labels = members.int().argmax(dim=0)[labels]
        value = F.cross_entropy(logits, labels)
        return value + self.soft * self.temperature**2 * kl(of_level, of_whole) if self.soft else value


def memberships(groups: Groups, logits: Float[Tensor, "batch classes"]) -> Bool[Tensor, "groups classes"]:
    """Which classes each group has.

    Raises:
        ValueError: a class is in none of them or in several, or a group has none.
    """
    classes = logits.shape[1]
    if sorted(label for group in groups for label in group) != list(range(classes)) or not all(groups):
        raise ValueError(f"nestednet's groups have each of the classes 0 to {classes - 1} once, but these are {groups}")
    return torch.tensor([[label in group for label in range(classes)] for group in groups], device=logits.device)


def merged(
    logits: Float[Tensor, "batch classes"], members: Bool[Tensor, "groups classes"]
) -> Float[Tensor, "batch groups"]:
    """Logits of groups, whose probabilities are the sums of those of their classes."""
    return logits[:, None].masked_fill(~members, -torch.inf).logsumexp(dim=2)


def masked(model: nn.Module, masks: Masks, inputs: Tensor) -> Tensor:
    """The model's output with some of its weights; its running statistics stay."""
    values = {name: value.clone() for name, value in model.named_buffers()}
    values |= {name: weight * masks[name] for name, weight in model.named_parameters() if name in masks}
    output: Tensor = functional_call(model, values, (inputs,))
    return output
