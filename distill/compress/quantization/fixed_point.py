"""Gupta et al.: Deep Learning with Limited Numerical Precision. arXiv:1502.02551, section 3: fixed-point numbers."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from distill.artifact import Artifact
from distill.artifact.storage import need
from distill.compress import hook
from distill.compress._weights import adopt, weights_of
from distill.errors import RecipeError
from distill.registry import form
from distill.registry.ranges import Range, Seed

Rounding = Literal["nearest", "stochastic"]
NEARBY = range(-1, 4)
"""Fraction lengths tried, from the one that just spans a weight's range: more of them clips the largest values."""


@hook("fixed_point")
def fixed_point(
    artifact: Artifact,
    *,
    bits: Annotated[int, Range(at_least=2, at_most=16)] = 8,
    rounding: Rounding = "nearest",
    seed: Seed = 0,
    layers: list[str] | None = None,
) -> Artifact:
    """Every weight as a whole number of 2**-fraction, with one fraction length per layer: no multiplication to decode.

    Args:
        artifact: what to compress.
        bits: of a word, with its sign, 2 to 16. Codes take one byte up to 8 bits, else two, until `encode`.
        rounding: ``stochastic`` rounds up with a probability equal to what is cut off, so that sums stay unbiased.
        seed: of ``stochastic``.
        layers: globs of module paths; without any, every layer.

    Raises:
        RecipeError: ``bits`` is out of range, a glob matches nothing, or the artifact is encoded.
        TrainingError: a weight holds values that are not finite.
    """
    if not 2 <= bits <= 16:
        raise RecipeError(f"fixed_point has words of 2 to 16 bits, not {bits}")
    weights = weights_of(artifact, "fixed_point", layers)
    stored = {
        name: FixedPoint.fit(weight.cpu(), bits, rounding, seed + place)
        for place, (name, weight) in enumerate(weights.items())
    }
    return adopt("fixed_point", artifact, stored)


@form("fixed_point")
@dataclass(frozen=True, eq=False, kw_only=True)
class FixedPoint:
    """Whole numbers of one power of two."""

    codes: Tensor
    """int8 or int16, in the tensor's own shape."""
    fraction: int
    """Bits after the point; below 0, or above ``bits``, the point is outside of the word."""
    bits: int
    rounding: Rounding
    seed: int

    @classmethod
    def fit(cls, tensor: Tensor, bits: int, rounding: Rounding = "nearest", seed: int = 0) -> "FixedPoint":
        """The fraction length that errs least when rounding to nearest; values out of range become the nearest."""
        spans = bits - 1 - int(torch.frexp(tensor.abs().max()).exponent)
        lengths = [spans + more for more in NEARBY]
        errors = [(_codes(tensor, bits, length, 0.5) * 2.0**-length - tensor).square().sum() for length in lengths]
        fraction = lengths[int(torch.stack(errors).argmin())]
        noise = 0.5 if rounding == "nearest" else _noise(tensor, seed)
        codes = _codes(tensor, bits, fraction, noise).to(torch.int8 if bits <= 8 else torch.int16)
        return cls(codes=codes, fraction=fraction, bits=bits, rounding=rounding, seed=seed)

    def validate(self, shape: tuple[int, ...]) -> None:
        kind = torch.int8 if self.bits <= 8 else torch.int16
        need(2 <= self.bits <= 16 and self.codes.dtype == kind, f"{self.bits} bits in {self.codes.dtype}")
        need(self.codes.shape == shape, "codes of another shape")
        need(abs(self.fraction) < 256, f"{self.fraction} bits after the point")

    def nbytes(self) -> int:
        return self.codes.nbytes

    def decode(self) -> Tensor:
        return self.codes.float() * 2.0**-self.fraction

    def requantize(self, tensor: Tensor) -> "FixedPoint":
        return self.fit(tensor, self.bits, self.rounding, self.seed)


def _codes(tensor: Tensor, bits: int, fraction: int, noise: Tensor | float) -> Tensor:
    scaled = tensor.double() * 2.0**fraction
    return (scaled + noise).floor().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _noise(tensor: Tensor, seed: int) -> Tensor:
    """From 0 to 1; drawn on the CPU, whose generator is the same everywhere."""
    return torch.rand(tensor.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(
        tensor.device
    )
