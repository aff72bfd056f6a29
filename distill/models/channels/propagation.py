"""Which channels of a network belong together: every activation carries, beside its values, an array of channel ids.

The network runs once, so whatever Python its forward is made of just runs. Convolutions and linear layers make new ids,
normalisation and depthwise convolutions keep them, sums and products unite those that meet, and views, splits and
concatenations are done to the array of ids itself. What is not known here pins the ids it reads.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from distill.models.channels.narrow import (
    Channelwise,
    Convolution,
    Transposed,
    depthwise,
    shape_after,
    sizes_of,
)

VALUE_BY_VALUE = {"clone", "_to_copy", "detach", "alias", "lift_fresh", "contiguous", "hardswish", "hardswish_"}
"""Beside those that torch tags as such."""
RESHAPES = {"view", "_unsafe_view", "reshape", "_reshape_copy"}
MOVES = {"permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "slice", "select", "split", "split_with_sizes"}
MOVES |= {"unbind", "cat", "stack", "flip", "roll", "repeat", "constant_pad_nd"}
REDUCTIONS = {"mean", "sum", "amax", "amin"}
SPATIAL = re.compile("pool|upsample|_pad")
"""Operations across the pixels of each channel on its own."""

Ids = np.ndarray
"""The ids of an activation; an axis along which they are all alike has size 1."""

CONSTANT = 0
"""The id of channels that no layer makes: of the image, of padding, of results of operations without a rule here."""


Place = tuple[str, str, int]
"""A layer's path, what it does with a channel ("makes", "reads" or "keeps"), and in which of its groups."""


class Ends(NamedTuple):
    """The ids at both ends of a layer."""

    inputs: list[int]
    outputs: list[int]
    """Empty for normalisation, which only keeps ids."""
    groups: int
    """0 for layers that keep ids: normalisation and depthwise convolutions."""
    positions: int
    """How often each of its weights is multiplied for one image."""


@dataclass(frozen=True)
class Channels:
    """The channels of a network, from one run. An id stands for all that were united with it."""

    ends: Mapping[str, Ends]
    """By module path, in the order in which they run."""
    pinned: frozenset[int]
    """Ids that must stay."""
    tied: tuple[frozenset[int], ...]
    """Ids between which a split or a shuffle counts: removing some asks for removing others."""
    unknown: tuple[str, ...]
    """Operations without a rule here, which pin the channels that they read."""

    def members(self) -> dict[int, tuple[Place, ...]]:
        """Where each id is, in the order of the layers."""
        found: dict[int, list[Place]] = {}
        for path, ends in self.ends.items():
            for ids, role in ((ends.inputs, "reads"), (ends.outputs, "makes")):
                places = [(path, role if ends.groups else "keeps", group) for group in range(max(1, ends.groups))]
                for position, channel in enumerate(ids):
                    found.setdefault(channel, []).append(places[position * len(places) // len(ids)])
        return {channel: tuple(places) for channel, places in found.items()}


@torch.no_grad()
def trace_channels(model: nn.Module, image: Tensor, paths: Collection[str], outputs: Mapping[str, int]) -> Channels:
    """Run the model as if its layers had other numbers of channels.

    Args:
        model: in eval mode; it is left as it was.
        image: one.
        paths: the layers to trace; they only make zeros.
        outputs: channels that layers make instead of their own; how many they read follows.

    Raises:
        Exception: whatever a network raises that cannot run like this.
    """
    run = Propagation(outputs)
    result = run.on(model, image, {path: model.get_submodule(path) for path in paths})
    for tensor in tree_leaves(result):
        if isinstance(tensor, Tensor):
            run.pin(tensor)
    return run.channels()


class Propagation(TorchDispatchMode):
    """One run of a network whose layers make zeros, and other numbers of channels where ``outputs`` says so."""

    def __init__(self, outputs: Mapping[str, int]) -> None:
        super().__init__()
        self.outputs = outputs
        self.ids: Any = WeakTensorKeyDictionary()
        self.parent = [CONSTANT]
        self.ends: dict[str, Ends] = {}
        self.pinned: set[int] = set()
        self.tied: list[set[int]] = []
        self.unknown: dict[str, None] = {}
        self.entered: tuple[str, nn.Module] | None = None

    def on(self, model: nn.Module, image: Tensor, layers: Mapping[str, nn.Module]) -> Any:
        """The model's output, with the channels of these layers traced."""
        try:
            for path, layer in layers.items():
                layer.__dict__["forward"] = partial(self.enter, path, layer)
            with self:
                return model(image)
        finally:
            for layer in layers.values():
                layer.__dict__.pop("forward", None)

    def channels(self) -> Channels:
        root = self.root
        ends = {
            path: found._replace(inputs=[root(i) for i in found.inputs], outputs=[root(i) for i in found.outputs])
            for path, found in self.ends.items()
        }
        tied = tuple(frozenset(map(root, some)) for some in self.tied)
        return Channels(ends, frozenset(map(root, self.pinned)), tied, tuple(self.unknown))

    def root(self, channel: int) -> int:
        while self.parent[channel] != channel:
            channel = self.parent[channel]
        return channel

    def unite(self, pairs: Iterable[tuple[int, int]]) -> None:
        for pair in pairs:
            first, second = sorted(map(self.root, pair))
            if first == CONSTANT != second:
                self.pinned.add(second)
            else:
                self.parent[second] = first

    def ids_of(self, tensor: Tensor) -> Ids:
        ids = self.ids.get(tensor)
        return np.full([1] * tensor.dim(), CONSTANT, np.int32) if ids is None else ids

    def pin(self, tensor: Tensor) -> None:
        self.pinned.update(self.ids_of(tensor).ravel().tolist())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.entered:
            (path, layer), self.entered = self.entered, None
            return self.passed(path, layer, args[0])
        result = func(*args, **(kwargs or {}))
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if any(t in self.ids for t in inputs):
            results = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
            found = self.moved(func, args, kwargs or {}, inputs, results[0])
            if found is None:
                self.unknown[func.overloadpacket.__name__] = None
                for tensor in inputs:
                    self.pin(tensor)
            for tensor, ids in zip(results, found or [], strict=False):
                self.ids[tensor] = ids
        return result

    def enter(self, path: str, layer: nn.Module, input: Tensor) -> Tensor:
        """What runs instead of the layer: continues in `passed`, where operations are not traced."""
        self.entered = path, layer
        return torch.ops.aten.alias(input)

    def passed(self, path: str, layer: nn.Module, inputs: Tensor) -> Tensor:
        """The result of a layer, in zeros, and its ids."""
        axis = inputs.dim() - 1 if isinstance(layer, nn.Linear) else 1
        unbatched = isinstance(layer, Convolution | Transposed) and inputs.dim() < layer.weight.dim()
        if unbatched or varying(self.ids_of(inputs)) - {axis}:
            with self:
                return type(layer).forward(layer, inputs)
        channels = np.broadcast_to(self.ids_of(inputs).ravel(), inputs.shape[axis]).tolist()
        made = self.made(path, layer, channels) or channels
        shape = list(shape_after(layer, inputs.shape))
        shape[axis] = len(made)
        result = inputs.new_zeros(shape)
        positions = (inputs if isinstance(layer, Transposed) else result).numel()
        positions //= len(channels if isinstance(layer, Transposed) else made)
        self.ends[path] = self.ends[path]._replace(positions=self.ends[path].positions + positions)
        along = [-1 if a == axis else 1 for a in range(len(shape))]
        self.ids[result] = _thin(np.array(made, np.int32).reshape(along))
        return result

    def made(self, path: str, layer: nn.Module, channels: list[int]) -> list[int]:
        """The ids that come out of a layer into which these go."""
        inputs, outputs = sizes_of(layer)
        groups = getattr(layer, "groups", 1)
        if path in self.ends:  # a layer used again
            if len(channels) != len(self.ends[path].inputs):
                raise ValueError(f"{path} is used at two widths")
            self.unite(zip(channels, self.ends[path].inputs, strict=True))
        elif isinstance(layer, Channelwise):
            self.ends[path] = Ends(channels, [], 0, 0)
        elif depthwise(layer):
            self.ends[path] = Ends(channels, [c for c in channels for _ in range(outputs // inputs)], 0, 0)
        else:
            size = self.outputs.get(path, outputs)
            if len(channels) % groups or size % groups:
                raise ValueError(f"{path} cannot have {len(channels)} and {size} channels in {groups} groups")
            new = list(range(len(self.parent), len(self.parent) + size))
            self.parent += new
            self.ends[path] = Ends(channels, new, groups, 0)
            if groups > 1:
                self.tied += [set(channels), set(new)]
        return self.ends[path].outputs

    def moved(self, func: Any, args: Any, kwargs: Any, inputs: list[Tensor], result: Tensor) -> list[Ids] | None:
        """Where the ids of the inputs are in the results; None where that is not known."""
        name = func.overloadpacket.__name__
        if name.startswith("new_") or name.endswith("_like"):
            return []  # made of the shape alone
        if torch.Tag.pointwise in func.tags or name in VALUE_BY_VALUE:
            return [self.met(inputs, result.shape)]
        ids = self.ids_of(inputs[0])
        if name in REDUCTIONS and len(args) > 1 and args[1]:
            axes = tuple(axis % ids.ndim for axis in args[1])
            if not varying(ids).intersection(axes):
                return [ids if result.dim() == ids.ndim else ids.squeeze(axes)]
        elif name in MOVES | RESHAPES and not (name == "constant_pad_nd" and len(args[1]) <= 2 * (result.dim() - 2)):
            return self.rearranged(func, args, kwargs, inputs, result)
        elif SPATIAL.search(name) and result.shape[:2] == inputs[0].shape[:2] and varying(ids) <= {0, 1}:
            return [ids]
        return None

    def met(self, inputs: list[Tensor], shape: torch.Size) -> Ids:
        """Ids after an operation that joins the inputs value by value."""
        whole, stretched = None, set()
        for tensor in inputs:
            before = len(shape) - tensor.dim()
            ids = self.ids_of(tensor).reshape((1,) * before + self.ids_of(tensor).shape)
            axes = {a for a, size in enumerate((1,) * before + tensor.shape) if size < shape[a]}
            if whole is None:
                whole, stretched = ids, axes
            elif axes & varying(whole):  # such as a map that weighs the pixels of all channels
                self.pin(tensor)
            elif stretched & varying(ids):
                self.pinned.update(whole.ravel().tolist())
                whole, stretched = ids, axes
            else:
                self.unite(set(zip(*(some.ravel().tolist() for some in np.broadcast_arrays(whole, ids)), strict=True)))
                whole, stretched = np.where(whole == CONSTANT, ids, whole), stretched & axes
        assert whole is not None
        return whole

    def rearranged(self, func: Any, args: Any, kwargs: Any, inputs: list[Tensor], result: Tensor) -> list[Ids]:
        """Ids after a view, a split, a concatenation, ..."""

        def everywhere(tensor: Tensor) -> Tensor:
            return torch.from_numpy(self.ids_of(tensor)).expand(tensor.shape)

        name = func.overloadpacket.__name__
        if name in RESHAPES:
            moved = [everywhere(inputs[0]).reshape(result.shape)]
        elif name == "constant_pad_nd":
            moved = [func(everywhere(inputs[0]), args[1], CONSTANT)]
        else:
            moved = tree_leaves(func(*tree_map_only(Tensor, everywhere, args), **kwargs))
        found = [_thin(ids.numpy()) for ids in moved]
        sources = [self.ids_of(tensor) for tensor in inputs]
        before = {i for ids in sources for i in ids.ravel().tolist()}
        cut = any(before.difference(ids.ravel().tolist()) for ids in found)
        if cut or max(len(varying(ids)) for ids in found) > max(len(varying(ids)) for ids in sources):
            self.tied.append(before - {CONSTANT})
        return found


def _thin(ids: Ids) -> Ids:
    """One in place of many along axes where they are all alike."""
    for axis, size in enumerate(ids.shape):
        first = ids.take([0], axis) if size > 1 else ids
        if size > 1 and (ids == first).all():
            ids = first
    return ids


def varying(ids: Ids) -> set[int]:
    """The axes along which ids are not all alike."""
    return {axis for axis, size in enumerate(ids.shape) if size > 1}
