"""How one tensor is kept on disk: each form is one frozen dataclass of tensors, plain settings and inner forms.

A new form is one class below `form`, here or beside the hook that makes it; saving and loading follow from its fields.
A method ``validate(shape)`` refuses, by a ValueError, fields that cannot decode to a tensor of that shape.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import prod
from types import UnionType
from typing import Any, Protocol, Union, get_args, get_origin, get_type_hints, runtime_checkable

import torch
from torch import Tensor

from distill.codecs import at_most, chain
from distill.codecs.auto import stages_of
from distill.errors import RecipeError
from distill.registry import form

Record = tuple[Mapping[str, Any] | None, dict[str, Tensor]]
"""A form's settings, plain data, and its tensors by name; a tensor that is kept as it is has neither settings nor a
name."""


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


@runtime_checkable
class Tied(Stored, Protocol):
    """A form whose values the positions share by a rule that takes no bytes, so that they are all its parameters."""

    def parameters(self) -> int:
        """How many values there are."""


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

    @property
    def stages(self) -> tuple[str, ...]:
        """In the order of encoding; of ``auto``, those that it took."""
        if self.codec.partition("(")[0] == "auto":
            return stages_of(self.data[:2].numpy().tobytes())
        return tuple(self.codec.split())

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

    def validate(self, shape: tuple[int, ...]) -> None:
        need(self.data.dtype == torch.uint8 and self.data.dim() == 1, "a coded stream is no list of bytes")
        inner: Any = self.inner
        need(hasattr(inner, "codes") and inner.codes.numel() == 0, "a coded stream beside codes")
        with at_most(8 * prod(shape) + 2**16):  # no code is wider than int64
            codes = self.codes()
        validate(replace(inner, codes=codes), shape)

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


def to_record(stored: Any) -> Record:
    """A form as plain data and named tensors."""
    settings: dict[str, Any] = {"form": _name(type(stored))}
    tensors: dict[str, Tensor] = {}
    for field in fields(stored):
        value = getattr(stored, field.name)
        if isinstance(value, Tensor):
            tensors[field.name] = value
        elif isinstance(value, Stored):
            inner_settings, inner = to_record(value)
            settings[field.name] = inner_settings
            tensors |= {f"{field.name}.{part}": tensor for part, tensor in inner.items()}
        elif value is not None:  # a field that is None takes no bytes
            settings[field.name] = value
    return settings, tensors


def from_record(settings: Mapping[str, Any] | None, tensors: Mapping[str, Tensor]) -> Stored:
    """The inverse of `to_record`.

    Raises:
        ValueError: fields are missing, unknown or of another type.
        RecipeError: there is no form of that name.
    """
    if not isinstance(settings, Mapping) or not isinstance(settings.get("form"), str):
        raise ValueError("a storage format without a name")
    values: dict[str, Any] = {key: value for key, value in settings.items() if key != "form"}
    for key, value in values.items():
        if isinstance(value, Mapping):
            inner = {
                part.removeprefix(f"{key}."): tensor for part, tensor in tensors.items() if part.startswith(f"{key}.")
            }
            values[key] = from_record(value, inner)
    values |= {part: tensor for part, tensor in tensors.items() if part.partition(".")[0] not in values}
    kind: Any = form.find(settings["form"])
    hints = get_type_hints(kind)
    for field in fields(kind):
        if field.name in values and not _is_of(values[field.name], hints[field.name]):
            raise ValueError(f"'{settings['form']}' has an impossible '{field.name}'")
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"'{settings['form']}' has other fields: {error}") from None


def validate(stored: Any, shape: tuple[int, ...]) -> None:
    """Refuse what cannot decode to a tensor of that shape, before memory is asked for.

    Forms say what they need in a method ``validate(shape)``; those without one are believed.

    Raises:
        ValueError: it cannot.
    """
    check = getattr(stored, "validate", None)
    if check is not None:
        check(shape)


def need(condition: bool, what: str) -> None:
    """Raise a ValueError if the condition of a ``validate`` is not met."""
    if not condition:
        raise ValueError(what)


def _is_of(value: Any, hint: Any) -> bool:
    """Whether plain data or tensors fit the annotation of a form's field."""
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_is_of(part, *get_args(hint)) for part in value)
    if get_origin(hint) in (UnionType, Union):
        return any(_is_of(value, option) for option in get_args(hint))
    if hint is Any or not isinstance(hint, type):
        return True
    return type(value) is hint if hint in (int, bool, str) else isinstance(value, hint)


def _name(kind: type) -> str:
    ours = (name for name in form.names() if form.find(name) is kind)
    return next(ours, f"{kind.__module__}:{kind.__qualname__}")
