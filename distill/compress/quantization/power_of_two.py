"""Zhou et al.: Incremental Network Quantization. arXiv:1702.03044, section 2.1: weights that are zero or a signed power
of two, so that multiplications become shifts.

Departs from the paper: all weights at once, each slice with exponents of its own, shifted down where that errs less.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from distill.artifact import Artifact
from distill.artifact.storage import need
from distill.compress import hook
from distill.compress._weights import adopt, channels_of, slice_count, slices, unsliced, weights_of
from distill.errors import RecipeError
from distill.registry import form

Bits = Literal[2, 3, 4, 5]
LOWEST, HIGHEST = -110, 110
POWERS = torch.tensor([2.0**exponent for exponent in range(-126, 128)])


@hook("power_of_two")
def power_of_two(
    artifact: Artifact,
    *,
    bits: Bits = 4,
    granularity: Literal["tensor", "channel"] = "channel",
    layers: list[str] | None = None,
) -> Artifact:
    """Each weight becomes the nearest of zero and 2**(bits - 1) - 1 neighbouring powers of two, with a sign.

    Args:
        artifact: what to compress.
        bits: of each code. Bytes are saved only by `encode` after it: codes are kept one to a byte.
        granularity: what has a largest power of its own.
        layers: globs of module paths; without any, every layer.

    Raises:
        RecipeError: ``bits`` is out of range, a glob matches nothing, or the artifact is encoded.
        TrainingError: a weight holds values that are not finite.
    """
    if bits not in get_args(Bits):
        raise RecipeError(f"power_of_two has codes of 2 to 5 bits, not {bits}: finer powers lie near zero only")
    stored = {}
    for name, weight in weights_of(artifact, "power_of_two", layers).items():
        axis = None if granularity == "tensor" else channels_of(artifact, name)
        stored[name] = PowersOfTwo.fit(weight.cpu(), bits, axis)
    return adopt("power_of_two", artifact, stored)


@form("powers_of_two")
@dataclass(frozen=True, eq=False, kw_only=True)
class PowersOfTwo:
    """Signed exponents."""

    codes: Tensor
    """int8, in the tensor's own shape: 0 for zero, else a sign and, from 1, how far below the largest power."""
    tops: Tensor
    """int8, the exponent of the largest power in each slice."""
    axis: int | None = None
    """Slices lie along this one; without it, the whole tensor is one."""
    bits: int

    @classmethod
    def fit(cls, tensor: Tensor, bits: int, axis: int | None = 0) -> "PowersOfTwo":
        """The largest power is near the largest value (equation 2), or up to 3 below it for a smaller squared error."""
        rows, count = slices(tensor.float(), axis), 2 ** (bits - 1) - 1
        first = torch.frexp(rows.abs().amax(1) * (4 / 3)).exponent - 1
        tops = torch.stack([(first - less).clamp(LOWEST, HIGHEST) for less in range(4)])
        codes = torch.stack([_codes(rows, top, count) for top in tops])
        errors = torch.stack([(_values(c, t) - rows).square().sum(1) for c, t in zip(codes, tops, strict=True)])
        best, slice_ = errors.argmin(0), torch.arange(len(rows), device=rows.device)
        nearest = unsliced(codes[best, slice_].to(torch.int8), tuple(tensor.shape), axis)
        return cls(codes=nearest, tops=tops[best, slice_].to(torch.int8), axis=axis, bits=bits)

    def validate(self, shape: tuple[int, ...]) -> None:
        need(self.codes.dtype == torch.int8 and self.codes.shape == shape, "codes of another type or shape")
        need(self.bits in get_args(Bits), f"{self.bits} bits")
        need(self.axis is None or 0 <= self.axis < len(shape), f"slices along axis {self.axis}")
        count = (slice_count(shape, self.axis),)
        need(self.tops.dtype == torch.int8 and self.tops.shape == count, "exponents of another type or number")
        need(bool(((self.tops >= LOWEST) & (self.tops <= HIGHEST)).all()), "an exponent that float32 does not have")

    def nbytes(self) -> int:
        return self.codes.nbytes + self.tops.nbytes

    def decode(self) -> Tensor:
        rows = _values(slices(self.codes, self.axis).int(), self.tops.int())
        return unsliced(rows, tuple(self.codes.shape), self.axis)

    def requantize(self, tensor: Tensor) -> "PowersOfTwo":
        return self.fit(tensor, self.bits, self.axis)


def _codes(rows: Tensor, tops: Tensor, count: int) -> Tensor:
    """The nearest of zero and ``count`` powers down from each row's top."""
    powers = _power(tops[:, None] - torch.arange(count - 1, -1, -1, device=rows.device))  # (rows, count), ascending
    borders = torch.cat([powers[:, :1] / 2, (powers[:, 1:] + powers[:, :-1]) / 2], 1)
    places = torch.searchsorted(borders, rows.abs().contiguous())  # 0: nearest to zero
    return (rows.sign() * torch.where(places > 0, count + 1 - places, 0)).int()


def _values(codes: Tensor, tops: Tensor) -> Tensor:
    return codes.sign() * _power((tops[:, None] + 1 - codes.abs()).clamp(min=-126))


def _power(exponents: Tensor) -> Tensor:
    return POWERS.to(exponents.device)[exponents.long() + 126]
