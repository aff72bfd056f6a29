"""Where a network's values are rounded so that a runtime can compute on their codes.

Krishnamoorthi: Quantizing deep convolutional networks for efficient inference. arXiv:1806.08342, section 2.4: the input
and the output of every convolution and linear layer, of additions and of joined channels; an activation function
belongs to the layer before it, and what only moves values needs no rounding of its own.
"""

from collections.abc import Collection
from typing import Literal, NamedTuple

from distill.models.tracing import Op, Trace

LAYERS = frozenset(["conv2d", "linear"])
MOVES = frozenset(
    [
        "view",
        "reshape",
        "flatten",
        "unflatten",
        "ravel",
        "squeeze",
        "unsqueeze",
        "transpose",
        "permute",
        "movedim",
        "swapaxes",
        "contiguous",
        "clone",
        "chunk",
        "split",
        "tensor_split",
        "unbind",
        "narrow",
        "select",
        "getitem",
        "pad",
        "dropout",
        "max_pool2d",
        "adaptive_max_pool2d",
    ]
)
"""Functions whose values are among those of their input, or 0."""
CLIPS = frozenset(["relu", "relu6", "hardtanh", "clamp"])
"""Functions that a runtime does by cutting codes off."""
SUMS = frozenset(["add", "avg_pool2d", "adaptive_avg_pool2d"])
JOINS = frozenset(["cat", "concat", "concatenate"])


class Spot(NamedTuple):
    """Where to round."""

    path: str
    """Of a module."""
    end: Literal["input", "output"]


class Place(NamedTuple):
    """Values that share a grid."""

    spots: tuple[tuple[Spot, ...], ...]
    """For each of the values, the ends of modules at which all of its readers, or most, read it rounded."""


class Places:
    """Finds them in a `Trace`.

    Args:
        flow: the network, its batch norms folded already.
        layers: paths of the layers that are to run on integers.
    """

    def __init__(self, flow: Trace, layers: Collection[str]) -> None:
        self.flow, self.layers = flow, layers
        self.made = {value: op for op in flow.ops for value in op.outputs}
        self.readers, self.times = flow.readers(), flow.times
        self.shared: dict[int, int] = {}
        """Value to round -> a value with the same grid, itself if it is the first of them."""

    def find(self) -> list[Place]:
        """All places, in the order of computation."""
        for op in self.flow.ops:
            if self._is_layer(op):
                self._round(self._root(op.inputs[0]))
                self._round(self._clipped(op.outputs[0]))
            elif all(self._root(value) in self.shared for value in op.inputs) and not _has_constant(op):
                self._joined(op)
        groups: dict[int, list[tuple[Spot, ...]]] = {}
        for value in sorted(self.shared):
            if spots := self._spots(value):
                groups.setdefault(self._grid(value), []).append(spots)
        return [Place(tuple(spots)) for spots in groups.values()]

    def _is_layer(self, op: Op) -> bool:
        return op.module in self.layers and op.name in LAYERS

    def _joined(self, op: Op) -> None:
        """Sums have a grid of their own; joined channels lie on one."""
        if op.name in SUMS or (op.name in CLIPS and self._clipped(op.inputs[0]) == op.inputs[0]):
            self._round(self._clipped(op.outputs[0]))
        elif op.name in JOINS:
            roots = [self._root(value) for value in op.inputs]
            result = self._clipped(op.outputs[0])
            self._round(result)
            for value in (*roots, *([result] if result == op.outputs[0] and result in self.shared else [])):
                self.shared[self._grid(value)] = self._grid(roots[0])

    def _round(self, value: int) -> None:
        if self._root(self.flow.result) != value:  # the network's output stays as it is
            self.shared.setdefault(value, value)

    def _grid(self, value: int) -> int:
        while self.shared[value] != value:
            value = self.shared[value]
        return value

    def _root(self, value: int) -> int:
        """Where a value came from, before it was only moved."""
        while value in self.made and self.made[value].name in MOVES:
            value = self.made[value].inputs[0]
        return value

    def _clipped(self, value: int) -> int:
        """What becomes of a value that is only read to be clipped."""
        while [op.name in CLIPS for op in self.readers.get(value, [])] == [True]:
            value = self.readers[value][0].outputs[0]
        return value

    def _spots(self, value: int) -> tuple[Spot, ...]:
        """Where to round: where the one layer that reads it begins, else where a module ends, else where one begins
        that all readers are in, else where the layers begin that read it, moved or not."""
        readers = self.readers.get(value, [])
        once = [call for call in self.flow.calls if call.path and self.times[call.path] == 1]
        begins = [call.path for call in once if call.input == value]
        ends = [call.path for call in once if call.output == value]
        if len(readers) == 1 and self._is_layer(readers[0]) and readers[0].module in begins:
            return (Spot(readers[0].module, "input"),)
        if ends:
            return (Spot(ends[0], "output"),)
        for path in begins:
            if all(f"{op.module}.".startswith(f"{path}.") for op in readers):
                return (Spot(path, "input"),)
        if len(readers) == 1 and readers[0].name in MOVES and len(readers[0].outputs) == 1:
            return self._spots(readers[0].outputs[0])
        layers = [call.path for call in once if call.path in self.layers and self._root(call.input) == value]
        return tuple(Spot(path, "input") for path in layers)


def _has_constant(op: Op) -> bool:
    """Whether a sum or a join takes a number or a parameter: a class token or a position embedding, often so small
    beside the values it meets that it would be rounded away with them."""
    return op.name in JOINS | {"add"} and len(op.inputs) < 2
