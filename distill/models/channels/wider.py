"""Networks with more channels, which go on computing what they did until they are trained."""

import copy
from bisect import bisect_left
from collections.abc import Callable, Collection
from functools import cache
from math import lcm

import torch
from torch import nn

from distill.models.channels.groups import Widths, contains
from distill.models.channels.narrow import Channelwise, fill, mask_channels, mask_of, rebuilt, sizes_of
from distill.models.channels.propagation import CONSTANT, Channels
from distill.models.channels.sizes import Sizes

TRIES = 4
"""Widths that are tried, each a step below the last, where shuffles and splits do not let a network have one."""


def widest(sizes: Sizes, free: Collection[str], fits: Callable[[Channels], bool], round_to: int = 1) -> Channels:
    """The network's channels when all free layers are wider by one factor, the largest at which it fits.

    Args:
        sizes: the network, which fits.
        free: layers whose number of output channels may change.
        fits: whether a network may be so wide.
        round_to: layers that grow get a multiple of so many channels, and of all groups.
    """
    now = {path: len(sizes.whole.ends[path].outputs) for path in free}
    if not now:
        return sizes.whole
    step = lcm(round_to, *(ends.groups or 1 for ends in sizes.whole.ends.values()))
    base = max(now.values())

    @cache
    def stretched(width: int) -> Channels:
        """With ``width`` channels in the widest layer, or somewhat fewer if the network does not run with as many."""
        for tried in range(width, base, -step)[:TRIES]:
            try:
                channels = sizes.trace({path: max(n, n * tried // base // step * step) for path, n in now.items()})
            except Exception:  # whatever a network says that does not run with these sizes
                continue
            if contains(channels, sizes.whole):
                return channels
        return sizes.whole

    top = base + max(base, step)
    while (channels := stretched(top)) is not sizes.whole and fits(channels):
        top += top - base
    candidates = range(base, top + 1, step)
    first = bisect_left(candidates, True, key=lambda width: not fits(stretched(width)))
    return stretched(candidates[first - 1])


def widened(narrow: nn.Module, sizes: Sizes, channels: Channels) -> nn.Module:
    """A wider copy that computes the same: new channels read those that were there, and nothing reads the new ones yet.

    Args:
        narrow: stays as it is.
        sizes: of the same network.
        channels: what `widest` returns.
    """
    new = {i for ends in channels.ends.values() for i in ends.outputs} - channels.pinned - {CONSTANT}
    kept = Widths(sizes.trace, channels, dict.fromkeys(new, 0.0), 1, 1).kept(sizes.whole)
    wide = rebuilt(copy.deepcopy(narrow), sizes.plan(channels))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # every call returns the same network, whatever random numbers were drawn before
        for path, (inputs, outputs) in kept.items():
            layer = wide.get_submodule(path)
            if sizes_of(layer) != sizes_of(narrow.get_submodule(path)):
                grow(layer, narrow.get_submodule(path), inputs, outputs)
    return wide


@torch.no_grad()
def grow(wide: nn.Module, narrow: nn.Module, inputs: list[int], outputs: list[int]) -> None:
    """Give ``wide`` the values of ``narrow`` for these of its channels; the rest is fresh, and 0 for other inputs."""
    wide.reset_parameters()  # type: ignore[operator]
    size = sizes_of(wide)
    if not isinstance(wide, Channelwise):
        mask_channels(wide, mask_of(inputs, size[0]), torch.ones(size[1], dtype=torch.bool))
    numbered, places = copy.deepcopy(wide).double(), copy.deepcopy(narrow).double()
    for value in numbered.state_dict().values():
        value.copy_(torch.arange(value.numel()).view_as(value))
    fill(places, numbered, torch.tensor(inputs), torch.tensor(outputs))
    where = places.state_dict()
    target = wide.state_dict()
    for name, value in narrow.state_dict().items():
        target[name].view(-1)[where[name].flatten().long()] = value.flatten()
