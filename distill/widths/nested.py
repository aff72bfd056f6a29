"""Networks inside a network: the first channels of every layer, or its largest weights, are one of their own.

Kim, Ahn & Oh: NestedNet: Learning Nested Sparse Structures in Deep Neural Networks. arXiv:1712.03781.
"""

import copy
from math import ceil
from typing import Literal

import torch
from torch import Tensor, nn

from distill.widths.channels import CONSTANT, Channels
from distill.widths.families import Widths
from distill.widths.narrow import Channelwise, Kept, mask_of, silence, sizes_of, weights
from distill.widths.sizes import Sizes

Nest = Literal["channels", "connections"]
Masks = dict[str, Tensor]
"""Parameter name -> True where a weight belongs to a level."""


def leading(sizes: Sizes, level: float) -> tuple[Channels, Kept]:
    """The channels of the network that has about this part of each layer's, and which they are: the first ones."""
    whole = sizes.whole
    order = {i: -float(i) for i in whole.members() if i not in whole.pinned and i != CONSTANT}
    widths = Widths(sizes.trace, whole, order, 1, 1)
    channels = widths.fit([family.nearest(level) for family in widths.families])[1]
    return channels, widths.kept(channels)


@torch.no_grad()
def leading_masks(sizes: Sizes, level: float) -> Masks:
    """The weights of that network."""
    masks = {}
    for path, both in leading(sizes, level)[1].items():
        layer = copy.deepcopy(sizes.model.get_submodule(path))
        if not isinstance(layer, Channelwise):
            weight = layer.weight
            assert isinstance(weight, Tensor)
            weight.fill_(1)
            silence(layer, *(mask_of(at, size) for at, size in zip(both, sizes_of(layer), strict=True)))
            masks[f"{path}.weight"] = weight.bool()
    return masks


@torch.no_grad()
def largest_masks(model: nn.Module, level: float) -> Masks:
    """This part of each layer's weights, the largest; of two levels, the larger one has all that the other has."""
    masks = {}
    for name, weight in weights(model):
        sizes = weight.detach().abs()
        count = ceil(level * sizes.numel())
        masks[name] = sizes >= sizes.flatten().kthvalue(sizes.numel() - count + 1).values
    return masks
