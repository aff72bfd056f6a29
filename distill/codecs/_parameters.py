"""What a stream of the `context` coder begins with: how the tensor is seen, its contexts and their tables."""

from dataclasses import dataclass
from itertools import accumulate
from math import isqrt, prod

import numpy as np

from distill.codecs._frame import Reader, number, signed
from distill.codecs._lanes import BUCKETS, MOST_LANES, Layout
from distill.codecs._neighbours import NAMES
from distill.codecs._parts import Part
from distill.codecs._tables import MOST_CONTEXTS, Alphabet, Tables
from distill.errors import ArtifactError

SHARED = 128
"""Added to the number of lanes if a number of states follows; the first streams had a state for each lane."""
PARTIAL = 64
"""Added likewise if rows or channels are left out."""
FEWEST_ROWS = 8
"""A tensor of fewer rows is seen as a square."""


@dataclass(frozen=True)
class Parameters:
    """All that the decoder has to know beside the symbols' meaning."""

    layout: Layout
    thresholds: tuple[int, ...]
    """The first bucket of each context but the first."""
    tables: Tables
    part: Part | None = None
    """What the layout is of, unless it is all of the tensor."""

    def contexts(self) -> np.ndarray:
        """uint8, (BUCKETS, 1 or 5): the table of each bucket, by which sign is expected if that makes a difference."""
        found = np.searchsorted(self.thresholds, np.arange(BUCKETS), side="right")[:, None]
        return (5 * found + np.arange(5) if self.signed else found).astype(np.uint8)

    @property
    def signed(self) -> bool:
        """Whether tables differ by which sign is expected."""
        return len(self.tables.tilts) > 0

    def to_bytes(self) -> bytes:
        layout, alphabet = self.layout, self.tables.alphabet
        first = bytes([SHARED | (PARTIAL if self.part else 0) | layout.lanes, layout.states])
        head = (
            first
            + (self.part.to_bytes() if self.part else b"")
            + bytes([alphabet.zero])
            + signed(alphabet.centre - 2 * alphabet.zero)
        )
        bounds = bytes([self.signed << 7 | len(self.thresholds)]) + b"".join(
            map(number, np.diff(self.thresholds, prepend=0).tolist())
        )
        estimate = number(layout.prior >> 8) + bytes(layout.weights) if self.thresholds else b""
        return head + bounds + estimate + self.tables.to_bytes()

    @classmethod
    def read(cls, reader: Reader, symbols: int, shape: tuple[int, ...]) -> "Parameters":
        """Of so many different symbols in a tensor of this shape.

        Raises:
            ArtifactError: the stream cannot be one of these.
        """
        first = reader.byte()
        lanes = first % PARTIAL
        states = reader.byte() if first & SHARED else lanes
        part = Part.read(reader, shape) if first & PARTIAL else None
        shape, zero = part.shape_left if part else shape, reader.byte()
        alphabet = Alphabet(symbols, zero, 2 * zero + reader.signed(2 * symbols))
        signed, bounds = divmod(reader.byte(), 128)
        steps = [reader.number() for _ in range(bounds)]
        thresholds = tuple(accumulate(steps))
        prior, weights = 0, (0,) * len(NAMES)
        if thresholds:
            prior, weights = reader.number(), tuple(reader.take(len(NAMES)))
        layout = Layout(prod(shape), *rows(shape), lanes, states, prior << 8, weights)
        if not (
            zero < symbols
            and 1 <= states <= lanes <= min(MOST_LANES, layout.width, layout.rows)
            and prior <= 255 << 8
            and len(thresholds) < MOST_CONTEXTS
            and all(bound < BUCKETS for bound in thresholds)
        ):
            raise ArtifactError("a coded stream has an impossible table")
        return cls(layout, thresholds, Tables.read(reader, alphabet, len(thresholds) + 1, signed == 1), part)


def rows(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The width of a row, the period in it, and a line of that: filters, kernels and their lines, if there are enough
    filters."""
    count = prod(shape)
    if len(shape) < 2 or shape[0] < min(FEWEST_ROWS, count // shape[0]):
        return max(1, isqrt(count)), 1, 1
    return count // shape[0], prod(shape[2:]), shape[-1] if len(shape) > 2 else 1
