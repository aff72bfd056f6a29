"""One layer of a network's files: its settings, the shapes it reads, and its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from distill.errors import ArtifactError


class Part(NamedTuple):
    """A layer in PyTorch's terms; some of Caffe's are two."""

    type: str
    """Of `MODULES`."""
    settings: Mapping[str, Any]
    weights: Mapping[str, Tensor] = {}
    suffix: str = ""
    """Of its name."""


@dataclass(frozen=True)
class Layer:
    """A layer of the prototxt, and its blobs in the caffemodel."""

    message: Any
    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    blobs: Sequence[Any] = ()
    shapes: Sequence[tuple[int, ...]] = field(default=(), compare=False)
    """Of what it reads."""

    @property
    def channels(self) -> int:
        self.need(len(self.shapes) > 0 and len(self.shapes[0]) > 1, "reads a map without channels")
        return self.shapes[0][1]

    @property
    def rank(self) -> int:
        return len(self.shapes[0])

    def need(self, condition: bool, complaint: str) -> None:
        """Refuse the layer unless the condition holds.

        Raises:
            ArtifactError: it does not.
        """
        if not condition:
            raise ArtifactError(f"layer '{self.name}' ({self.type}) {complaint}")

    def axis(self, axis: int) -> int:
        """Counted from the front."""
        self.need(-self.rank <= axis < self.rank, f"has axis {axis}, but reads a map of shape {list(self.shapes[0])}")
        return axis % self.rank

    def weights(self, *shapes: tuple[int, ...]) -> list[Tensor]:
        """The layer's blobs, which must be so many and have these shapes; checked before anything is allocated.

        Raises:
            ArtifactError: there are others.
        """
        wanted = ", ".join("x".join(map(str, shape)) for shape in shapes)
        self.need(len(self.blobs) > 0, f"needs weights of {wanted}, but the caffemodel holds none for it")
        self.need(
            len(self.blobs) == len(shapes),
            f"needs {len(shapes)} blobs of {wanted}, but the caffemodel holds {len(self.blobs)}",
        )
        return [self._values(blob, shape) for blob, shape in zip(self.blobs, shapes, strict=True)]

    def _values(self, blob: Any, shape: tuple[int, ...]) -> Tensor:
        stored = shape_of(blob)
        same = _squeezed(stored) == _squeezed(shape)
        expected, found = ("x".join(map(str, some)) or "1 value" for some in (shape, stored))
        self.need(
            same, f"needs weights of {expected}, but the caffemodel holds {found}: do the two files belong together?"
        )
        values = _floats(blob, prod(shape))
        self.need(
            values is not None,
            f"has a blob of {expected} in the caffemodel that holds another number of values: damaged",
        )
        assert values is not None
        return torch.from_numpy(values).reshape(shape)


def shape_of(blob: Any) -> tuple[int, ...]:
    """The blob's shape: in the field ``shape`` of today, or in the four fields of old files."""
    if blob.HasField("shape"):
        return tuple(blob.shape.dim)
    return (blob.num, blob.channels, blob.height, blob.width)


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """Without leading ones: old files have four axes everywhere."""
    kept = list(shape)
    while kept and kept[0] == 1:
        kept.pop(0)
    return tuple(kept)


def _floats(blob: Any, count: int) -> np.ndarray | None:
    """The blob's values as float32, or None where their number is another."""
    if blob.raw_data and blob.raw_data_type in (0, 1, 2):
        dtype = np.dtype(("<f8", "<f4", "<f2")[blob.raw_data_type])
        if len(blob.raw_data) == count * dtype.itemsize:
            return np.frombuffer(blob.raw_data, dtype).astype(np.float32)
        return None
    data = blob.data or blob.double_data
    return np.fromiter(data, np.float32, count) if len(data) == count else None
