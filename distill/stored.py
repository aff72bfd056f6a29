"""How one tensor is kept on disk: each form is one frozen dataclass of tensors, plain settings and inner forms.

A new form is one class below `form`, here or beside the hook that makes it; saving and loading follow from its fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from distill.codecs import codec
from distill.errors import RecipeError
from distill.registry import Registry

form = Registry("stored form", package="distill.compress")


@runtime_checkable
class Stored(Protocol):
    """A compact form of one tensor. The model itself always holds the decoded tensor."""

    def nbytes(self) -> int:
        """Bytes of its tensors, without names and settings."""

    def decode(self) -> Tensor:
        """The tensor, always to the same bits."""

    def refit(self, tensor: Tensor) -> "Stored":
        """The same form, fitted to new values."""


@form("quantized")
@dataclass(frozen=True, eq=False, kw_only=True)
class Quantized:
    """Krishnamoorthi: Quantizing deep convolutional networks. arXiv:1806.08342, section 2.2: symmetric integer codes
    with one scale per slice.

    Scales are bfloat16: a code times a scale is then exact in float32, the same on every machine, and no value is off
    by more than half a scale.
    """

    codes: Tensor
    """int8, in the tensor's own shape; fewer bits are a matter of `encode`."""
    scales: Tensor
    """One per slice along ``axis``."""
    axis: int
    bits: int

    @classmethod
    def fit(cls, tensor: Tensor, bits: int, axis: int = 0) -> "Quantized":
        """The largest value of each slice becomes the largest code, 2**(bits - 1) - 1."""
        largest = 2 ** (bits - 1) - 1
        peaks = tensor.float().abs().movedim(axis, 0).reshape(tensor.shape[axis], -1).amax(1)
        scales = (peaks / largest).bfloat16()
        scales[scales < torch.finfo(scales.dtype).tiny] = 1  # a slice of zeros
        codes = (tensor / _along(scales, axis, tensor.dim())).round().clamp(-largest, largest)
        return cls(codes=codes.to(torch.int8), scales=scales, axis=axis, bits=bits)

    def nbytes(self) -> int:
        return self.codes.nbytes + self.scales.nbytes

    def decode(self) -> Tensor:
        return self.codes.float() * _along(self.scales, self.axis, self.codes.dim())

    def refit(self, tensor: Tensor) -> "Quantized":
        return self.fit(tensor, self.bits, self.axis)


@form("encoded")
@dataclass(frozen=True, eq=False, kw_only=True)
class Encoded:
    """A form whose integer ``codes`` are a coded byte stream."""

    codec: str
    data: Tensor
    """uint8"""
    inner: Stored
    """The form, with no codes in it."""

    @classmethod
    def of(cls, stored: Any, name: str) -> "Encoded":
        """Code ``stored.codes``, whatever the form."""
        data = codec.find(name)().encode(stored.codes.cpu().numpy())
        inner = replace(stored, codes=stored.codes.new_empty(0))
        return cls(codec=name, data=torch.frombuffer(bytearray(data), dtype=torch.uint8), inner=inner)

    def nbytes(self) -> int:
        return self.data.nbytes + self.inner.nbytes()

    def decode(self) -> Tensor:
        codes = codec.find(self.codec)().decode(self.data.numpy().tobytes())
        inner: Any = self.inner
        return replace(inner, codes=torch.from_numpy(codes)).decode()

    def refit(self, tensor: Tensor) -> "Encoded":
        raise RecipeError("coded tensors cannot be trained: put 'encode' last in compress, without finetune")


def to_record(stored: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A form as plain data and named tensors."""
    settings: dict[str, Any] = {"form": _name(type(stored))}
    tensors: dict[str, Tensor] = {}
    for field in fields(stored):
        value = getattr(stored, field.name)
        if isinstance(value, Tensor):
            tensors[field.name] = value
        elif isinstance(value, Stored):
            settings[field.name], inner = to_record(value)
            tensors |= {f"{field.name}.{part}": tensor for part, tensor in inner.items()}
        else:
            settings[field.name] = value
    return settings, tensors


def from_record(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Stored:
    """The inverse of `to_record`."""
    values: dict[str, Any] = {key: value for key, value in settings.items() if key != "form"}
    for key, value in values.items():
        if isinstance(value, Mapping):
            inner = {
                part.removeprefix(f"{key}."): tensor for part, tensor in tensors.items() if part.startswith(f"{key}.")
            }
            values[key] = from_record(value, inner)
    return form.find(settings["form"])(**{part: t for part, t in tensors.items() if "." not in part}, **values)


def _name(kind: type) -> str:
    ours = (name for name in form.names() if form.find(name) is kind)
    return next(ours, f"{kind.__module__}:{kind.__qualname__}")


def _along(scales: Tensor, axis: int, axes: int) -> Tensor:
    return scales.float().reshape([-1 if a == axis else 1 for a in range(axes)])
