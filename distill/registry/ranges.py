"""What a setting may be, written into annotations: ranges of numbers, ``temperature: Positive = 4.0``, and stages.

Recipes are checked against them when they are loaded, ``python -m distill list`` shows them.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any

from distill.errors import RecipeError

SHOWN = 24
"""Characters of a number in a message: whole numbers of YAML have no bound."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """What a number may be; NaN and the infinities are never inside."""

    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None

    def check(self, value: Any, place: str) -> None:
        """Check one number; None, for settings that may be left out, passes.

        Raises:
            RecipeError: the number is outside; the message begins with ``place``.
        """
        if value is not None and value not in self:
            raise RecipeError(f"{place} is {str(value)[:SHOWN]}, but must be {self}")

    def __contains__(self, value: float) -> bool:
        return (
            (isinstance(value, int) or math.isfinite(value))
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        bounds = [
            f"{words} {bound if isinstance(bound, int) else format(bound, 'g')}"
            for words, bound in (
                ("above", self.above),
                ("at least", self.at_least),
                ("at most", self.at_most),
                ("below", self.below),
            )
            if bound is not None
        ]
        return " and ".join(bounds) or "finite"


@dataclass(frozen=True)
class Stages:
    """Marks a setting that holds the stages of a codec, ``"ans"`` or ``["delta", "csc(index_bits=8)", "ans"]``: recipes
    are checked for their names and settings when they are loaded."""


@dataclass(frozen=True)
class FileOrName:
    """Marks a text that is a path, where it is no name: ``~`` is the user's home in it."""


FINITE = Range()
"""What every float of a recipe is held to."""

Positive = Annotated[float, Range(above=0)]
NonNegative = Annotated[float, Range(at_least=0)]
Probability = Annotated[float, Range(at_least=0, at_most=1)]
Fraction = Annotated[float, Range(above=0, at_most=1)]
"""A part of something, above nothing and up to all of it."""
Share = Annotated[float, Range(above=0, below=1)]
"""A part of something, neither nothing nor all of it."""
BelowOne = Annotated[float, Range(at_least=0, below=1)]
"""A part of something, perhaps nothing, never all of it: of a training set, what is held out."""
Percentile = Annotated[float, Range(above=0, at_most=100)]
Width = Annotated[float, Range(above=0, at_most=64)]
"""A factor of a network's numbers of channels."""
Temperature = Annotated[float, Range(at_least=1e-3, at_most=1e6)]
"""Logits are divided by it; outside of these bounds softmax is one-hot or uniform in float32."""
Count = Annotated[int, Range(at_least=1)]
Several = Annotated[int, Range(at_least=2)]
Index = Annotated[int, Range(at_least=0)]
Axis = Annotated[int, Range(at_least=-8, at_most=7)]
"""Of an array, counted from the end if negative."""
CodebookSize = Annotated[int, Range(at_least=2, at_most=256)]
"""Entries that a code of one byte tells apart."""
IndexBits = Annotated[int, Range(at_least=1, at_most=32)]
BlockSize = Annotated[int, Range(at_least=1, at_most=256)]
"""Rows and columns of a block of a matrix."""
Seed = Annotated[int, Range(at_least=0, at_most=2**32 - 1)]
"""What every random generator that Lightning seeds takes."""
