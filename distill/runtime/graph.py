"""A network as plain data: which operators compute what from which tensors.

In a file it is JSON in a zstd frame in base 64: ``{"nodes": [[operator, {argument: value}], ...], "output": value,
"constants": {name: [type, shape, base 64 of the values]}, "input": [channels, height, width]}``; the last is null where
any size will do, and earlier versions wrote none. A value is a number (NaN, Infinity and -Infinity are
some), true, false, null, a list of values, ``{"text": text}``, or a text, which is a name: "%0" of the network's input,
"%3" of what the third node computes, any other of a tensor of the file or of a constant.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import zstandard

from distill.container import byte_planes
from distill.container.raw import SIZES, Raw

INPUT = "%0"
LONGEST = 2**24
"""Bytes of JSON that a graph may have."""
SHORT = 2**20
"""So many it may have however few they are once compressed, as those of a mask of one value are."""
NODES = 100_000


class Node(NamedTuple):
    """One step of the computation."""

    operator: str
    """The name of an ATen operator, without overload."""
    arguments: Mapping[str, Any]
    """Values by the operator's own names; those that are not here have ATen's defaults."""


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which they can be computed."""

    nodes: tuple[Node, ...]
    output: str
    constants: Mapping[str, Raw] = field(default_factory=dict)
    """Tensors that the file does not hold otherwise."""
    input: tuple[int, ...] | None = None
    """(channels, height, width) of the only inputs that it computes right; None where others may be, too."""

    def to_text(self) -> str:
        """What a file holds."""
        content = {
            "nodes": [list(node) for node in self.nodes],
            "output": self.output,
            "constants": {
                name: [raw.kind, list(raw.shape), base64.b64encode(raw.data).decode()]
                for name, raw in self.constants.items()
            },
            "input": self.input,
        }
        text = json.dumps(content, separators=(",", ":")).encode()
        return base64.b64encode(zstandard.ZstdCompressor(level=byte_planes.LEVEL).compress(text)).decode()

    @classmethod
    def from_text(cls, text: str) -> "Graph":
        """The inverse of `to_text`.

        Raises:
            ValueError: the text is no graph.
        """
        frame = base64.b64decode(text, validate=True)
        size = zstandard.frame_content_size(frame)
        if not 0 < size <= min(LONGEST, max(SHORT, 1024 * len(frame))):
            raise ValueError(f"a graph of {len(frame)} bytes claims {size} once decompressed")
        content = json.loads(byte_planes.unzip(frame.removeprefix(byte_planes.MAGIC), size))
        nodes = tuple(Node(*node) for node in content["nodes"])
        if len(nodes) > NODES or not all(type(n.operator) is str and isinstance(n.arguments, dict) for n in nodes):
            raise ValueError("its graph holds something else than nodes")
        constants = {name: _constant(*entry) for name, entry in content["constants"].items()}
        size = content.get("input")
        graph = cls(nodes, content["output"], constants, None if size is None else tuple(size))
        graph.check()
        return graph

    def check(self) -> None:
        """See that each node reads only what nodes before it compute, and that the size of inputs is one.

        Raises:
            ValueError: one does not, or it is none.
        """
        if self.input is not None and not all(type(side) is int and side > 0 for side in self.input):
            raise ValueError(f"its input of size {self.input} is none")
        for number, node in enumerate(self.nodes):
            if not all(map(_is_value, node.arguments.values())):
                raise ValueError(f"node {number + 1} ({node.operator}) has an argument that is no value")
            for name in names(node.arguments):
                if name.startswith("%") and not (name[1:].isdecimal() and int(name[1:]) <= number):
                    raise ValueError(f"node {number + 1} ({node.operator}) reads {name}, which is not computed before")
        if type(self.output) is not str or self.output not in {f"%{k}" for k in range(len(self.nodes) + 1)}:
            raise ValueError(f"its output {self.output!r} is not computed")


def _is_value(value: Any) -> bool:
    """Whether it is a number, true, false, null, a name, a word, or a list of such."""
    if isinstance(value, dict):
        return value.keys() == {"text"} and isinstance(value["text"], str)
    return not isinstance(value, list) or all(map(_is_value, value))


def names(value: Any) -> Iterator[str]:
    """Every name in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from names(inner)
    elif isinstance(value, dict) and "text" not in value:
        for inner in value.values():
            yield from names(inner)


def resolved(value: Any, named: Callable[[str], Any]) -> Any:
    """A value with what is named in place of names."""
    if isinstance(value, str):
        return named(value)
    if isinstance(value, list):
        return [resolved(inner, named) for inner in value]
    return value["text"] if isinstance(value, dict) else value


def _constant(kind: str, shape: list[int], data: str) -> Raw:
    raw = Raw(kind, tuple(shape), base64.b64decode(data, validate=True))
    if kind not in SIZES or len(raw.data) != raw.nbytes:
        raise ValueError(f"a constant of type {kind} and shape {shape} in {len(raw.data)} bytes")
    return raw
