"""How one tensor is kept on disk: each form is one frozen dataclass of tensors, plain settings and inner forms.

A new form is one class below `form`, here or beside the hook that makes it; saving and loading follow from its fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from distill.codecs import chain
from distill.errors import RecipeError
from distill.registry import form


@runtime_checkable
class Stored(Protocol):
    """A compact form of one tensor. The model itself always holds the decoded tensor."""

    def nbytes(self) -> int:
        """Bytes of its tensors, without names and settings."""

    def decode(self) -> Tensor:
        """The tensor, always to the same bits."""

    def requantize(self, tensor: Tensor) -> "Stored":
        """The same form, fitted to new values."""


@runtime_checkable
class Shared(Stored, Protocol):
    """A form in which many positions have one value: training moves these values, and the codes stay.

    Han, Mao & Dally: Deep Compression. arXiv:1510.00149, section 3.3.
    """

    common: bool
    """Whether forms that hold equal values train them together."""

    def shared(self) -> Tensor:
        """The values, float32."""

    def with_shared(self, values: Tensor) -> "Shared":
        """The same codes with other values; what it decodes to passes gradients on to ``values``."""


@form("encoded")
@dataclass(frozen=True, eq=False, kw_only=True)
class Encoded:
    """A form whose integer ``codes`` are a coded byte stream."""

    codec: str
    """Stages in the order of encoding, with spaces between: ``"delta bitmap ans"``. See `distill.codecs.chain`."""
    data: Tensor
    """uint8"""
    inner: Stored
    """The form, with no codes in it."""

    @classmethod
    def of(cls, stored: Any, name: str) -> "Encoded":
        """Code ``stored.codes``, whatever the form. For ``name``, see ``codec``."""
        data = chain(*name.split()).encode(stored.codes.cpu().numpy())
        inner = replace(stored, codes=stored.codes.new_empty(0))
        return cls(codec=name, data=torch.frombuffer(bytearray(data), dtype=torch.uint8), inner=inner)

    def nbytes(self) -> int:
        return self.data.nbytes + self.inner.nbytes()

    def codes(self) -> Tensor:
        """The integers.

        Raises:
            ArtifactError: the stream is damaged.
        """
        return torch.from_numpy(chain(*self.codec.split()).decode(self.data.numpy().tobytes()))

    def decode(self) -> Tensor:
        inner: Any = self.inner
        return replace(inner, codes=self.codes()).decode()

    def requantize(self, tensor: Tensor) -> "Encoded":
        raise RecipeError("coded tensors cannot be trained: put 'encode' last in compress, without finetune")


def moved(stored: Any, device: torch.device) -> Any:
    """The form with its tensors on that device."""
    tensors = {f.name: value for f in fields(stored) if isinstance(value := getattr(stored, f.name), Tensor)}
    inner = {f.name: value for f in fields(stored) if isinstance(value := getattr(stored, f.name), Stored)}
    return replace(
        stored,
        **{name: tensor.to(device) for name, tensor in tensors.items()},
        **{name: moved(form, device) for name, form in inner.items()},
    )


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
        elif value is not None:  # what a form does without costs no bytes
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
