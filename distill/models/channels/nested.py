"""Networks inside a network: every layer's first channels or largest weights, or the first blocks, are one.

Kim, Ahn & Oh: NestedNet: Learning Nested Sparse Structures in Deep Neural Networks. arXiv:1712.03781.
"""

import copy
from collections.abc import Sequence
from math import ceil
from typing import Literal

import torch
from torch import Tensor, nn

from distill.errors import RecipeError
from distill.models.channels.groups import Widths
from distill.models.channels.narrow import Channelwise, Kept, mask_channels, mask_of, sizes_of, weights
from distill.models.channels.propagation import CONSTANT, Channels
from distill.models.channels.sizes import Sizes
from distill.models.residual import Residual, residual_blocks

Nest = Literal["channels", "connections", "layers"]
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
            mask_channels(layer, *(mask_of(at, size) for at, size in zip(both, sizes_of(layer), strict=True)))
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


def spare_blocks(blocks: Sequence[Residual], level: float) -> list[Residual]:
    """The blocks that a level is without: those of each stage but this part of them, the first ones.

    Blocks whose branches return maps of one shape are a stage. A block that does more than add always stays.
    """
    stages: dict[tuple[int, ...], list[Residual]] = {}
    for block in blocks:
        stages.setdefault(block.shape, []).append(block)
    return [block for stage in stages.values() for block in stage[ceil(level * len(stage)) :] if block.removable]


def removable_blocks(model: nn.Module, image: Tensor) -> list[Residual]:
    """The residual blocks of a model that evaluates, of which some can be taken out.

    Raises:
        RecipeError: there are none.
    """
    blocks = residual_blocks(model, image)
    if not any(block.removable for block in blocks):
        raise RecipeError(
            f"nest 'layers' removes residual blocks, but {type(model).__name__} has none that return their input "
            "without their branch: nest 'channels' or 'connections'"
        )
    return blocks


def block_masks(model: nn.Module, spare: Sequence[Residual]) -> Masks:
    """All parameters of the network, those in the branches of these blocks as none of the level's."""
    gone = {path for block in spare for path in block.branch}
    return {
        name: torch.full_like(parameter, name.rpartition(".")[0] not in gone, dtype=torch.bool)
        for name, parameter in model.named_parameters()
    }
