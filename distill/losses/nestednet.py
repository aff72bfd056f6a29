"""Kim, Ahn & Oh: NestedNet: Learning Nested Sparse Structures in Deep Neural Networks. arXiv:1712.03781, section 3: one
set of weights is trained to be several networks, each inside the next.

`nested_level` takes one of them out. Departs from the paper: which channels or weights are of a level is not learned
beforehand but follows from their place or their size in every step, levels have no classifiers of their own but a part
of one, and layer scheduling is left out. Batch statistics are the whole network's; `nested_level` finds a level's own.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from distill.losses import loss
from distill.widths.nested import Masks, Nest, largest_masks, leading_masks
from distill.widths.sizes import followed_copy


@loss("nestednet")
class NestedNet(nn.Module):
    """The mean cross-entropy of all levels, the whole network's among them: train with ``task_weight: 0``.

    Args:
        student_model: the network that is being trained.
        levels: the part of each layer that belongs to each inner network, above 0 and below 1; without any, a quarter
            and a half.
        nest: what the parts are of: ``channels``, the first ones, so that a level is a narrower network; or
            ``connections``, the largest weights.

    Raises:
        ValueError: a level is out of range.
    """

    def __init__(self, student_model: nn.Module, *, levels: list[float] | None = None, nest: Nest = "channels") -> None:
        super().__init__()
        self.levels = sorted(levels or [0.25, 0.5])
        if not 0 < self.levels[0] <= self.levels[-1] < 1:
            raise ValueError(
                f"nestednet's levels are above 0 and below 1, not {self.levels}; the whole network is another"
            )
        self.network = (student_model,)  # in a tuple: its parameters are not this loss's
        self.nest = nest
        self.fixed: list[Masks] = []

    def forward(
        self,
        student: Float[Tensor, "batch classes"],
        labels: Int[Tensor, "batch"],
        inputs: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, ""]:
        (model,) = self.network
        outputs = [student, *(masked(model, masks, inputs) for masks in self.masks(inputs))]
        return torch.stack([F.cross_entropy(output, labels) for output in outputs]).mean()

    def masks(self, inputs: Float[Tensor, "batch channels height width"]) -> list[Masks]:
        """Of every level, fewest first; those of the largest weights are as the weights are now."""
        (model,) = self.network
        if self.nest == "connections":
            return [largest_masks(model, level) for level in self.levels]
        if not self.fixed:
            sizes = followed_copy(model, inputs[:1])
            self.fixed = [leading_masks(sizes, level) for level in self.levels]
        self.fixed = [{name: mask.to(inputs.device) for name, mask in masks.items()} for masks in self.fixed]
        return self.fixed


def masked(model: nn.Module, masks: Masks, inputs: Tensor) -> Tensor:
    """What the model answers with some of its weights; its running statistics stay."""
    values = {name: value.clone() for name, value in model.named_buffers()}
    values |= {name: weight * masks[name] for name, weight in model.named_parameters() if name in masks}
    output: Tensor = functional_call(model, values, (inputs,))
    return output
