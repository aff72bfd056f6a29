"""Outputs of a teacher as rows of bytes, all of one length, and back."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from distill.errors import RecipeError

Rows = UInt8[np.ndarray, "batch bytes"]
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float16, torch.bfloat16, torch.float32)}


@dataclass(frozen=True)
class Coding(ABC):
    """How the outputs at one tap are kept.

    Args:
        shape: of one sample's output.
        live: the teacher's own dtype.
        kept: the dtype of the rows.
    """

    shape: tuple[int, ...]
    live: str
    kept: str

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that one sample takes."""

    @abstractmethod
    def _packed(self, outputs: Tensor) -> Tensor: ...

    @abstractmethod
    def _unpacked(self, packed: Tensor) -> Tensor: ...

    def encode(self, outputs: Tensor) -> Rows:
        """
        Raises:
            RecipeError: outputs of another shape, or too large for ``kept``.
        """
        if tuple(outputs.shape[1:]) != self.shape:
            raise RecipeError(f"they are of shape {self.shape} and {tuple(outputs.shape[1:])}, but a cache needs one")
        return self._packed(outputs).cpu().numpy()

    def decode(self, rows: Rows, device: torch.device) -> Tensor:
        """The outputs as the teacher computed them, up to what ``kept`` and the coding lose."""
        packed = torch.from_numpy(rows)
        if device.type == "cuda":  # from other memory a copy waits for all that the GPU has to do
            packed = packed.pin_memory()
        return self._unpacked(packed.to(device, non_blocking=True)).to(DTYPES[self.live])

    def to_json(self) -> dict[str, Any]:
        """Plain data that `coding` reads again."""
        return asdict(self)

    def _narrowed(self, values: Tensor) -> Tensor:
        narrow = values.to(DTYPES[self.kept])
        if (narrow.isinf() & values.isfinite()).any():
            largest = values[values.isfinite()].abs().max()
            raise RecipeError(f"they reach {largest:.3g}, more than {self.kept} holds: set cache.dtype=float32")
        return narrow


@dataclass(frozen=True)
class Whole(Coding):
    """Every value, in the memory order of the teacher's outputs: reading only widens them."""

    channels_last: bool

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.kept].itemsize

    def _packed(self, outputs: Tensor) -> Tensor:
        ordered = outputs.permute(0, 2, 3, 1) if self.channels_last else outputs
        return _bytes(self._narrowed(ordered))

    def _unpacked(self, packed: Tensor) -> Tensor:
        values = packed.view(DTYPES[self.kept])
        if not self.channels_last:
            return values.view(-1, *self.shape)
        channels, height, width = self.shape
        return values.view(-1, height, width, channels).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class TopK(Coding):
    """The ``k`` largest logits and the log-sum-exp of the others, which on reading is spread evenly over them.

    So softmax of what is read is a distribution in which the ``k`` most probable classes have the teacher's own
    probabilities. At a temperature other than 1 it only resembles the teacher's.
    """

    k: int

    @property
    def nbytes(self) -> int:
        return (self.k + 1) * DTYPES[self.kept].itemsize + self.k * self._index.itemsize

    @property
    def _index(self) -> torch.dtype:
        return torch.int16 if self.shape[0] <= torch.iinfo(torch.int16).max else torch.int32

    def _packed(self, outputs: Tensor) -> Tensor:
        logits = outputs.float()
        largest, classes = logits.topk(self.k, dim=1)
        rest = logits.scatter(1, classes, -torch.inf).logsumexp(dim=1, keepdim=True)
        values = self._narrowed(torch.cat([largest, rest], dim=1))
        return torch.cat([_bytes(values), _bytes(classes.to(self._index))], dim=1)

    def _unpacked(self, packed: Tensor) -> Tensor:
        indices = self.k * self._index.itemsize
        values = packed[:, :-indices].contiguous().view(DTYPES[self.kept]).float()
        classes = packed[:, -indices:].contiguous().view(self._index).long()
        others = values[:, -1:] - math.log(self.shape[0] - self.k)
        return others.repeat(1, self.shape[0]).scatter(1, classes, values[:, :-1])


def coding_for(outputs: Tensor, kept: str, top_k: int | None) -> Coding:
    """The coding of such outputs.

    Raises:
        RecipeError: outputs that are no floating-point numbers, or no rows of more than ``top_k`` logits.
    """
    shape, live = tuple(outputs.shape[1:]), str(outputs.dtype).removeprefix("torch.")
    if live not in DTYPES:
        raise RecipeError(f"they are of type {live}; a cache keeps {', '.join(DTYPES)}: set cache=null")
    if top_k is None:
        last = outputs.ndim == 4 and outputs.is_contiguous(memory_format=torch.channels_last)
        return Whole(shape, live, kept, channels_last=last and not outputs.is_contiguous())
    if len(shape) != 1 or shape[0] <= top_k:
        raise RecipeError(
            f"they are of shape {shape}, but cache.top_k={top_k} needs a row of more than {top_k} logits "
            "for each image: set cache.top_k=null"
        )
    return TopK(shape, live, kept, k=top_k)


def coding(settings: Mapping[str, Any]) -> Coding:
    """The coding that `Coding.to_json` described."""
    kind = TopK if "k" in settings else Whole
    return kind(**{**settings, "shape": tuple(settings["shape"])})


def _bytes(values: Tensor) -> Tensor:
    return values.reshape(len(values), -1).contiguous().view(torch.uint8)
