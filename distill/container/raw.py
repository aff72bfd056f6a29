"""An array as a file holds it: its type by name, its shape and its bytes. NumPy lacks bfloat16, so no array itself."""

from math import prod
from typing import NamedTuple

import numpy as np

SIZES = {
    **{"bool": 1, "uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8},
    **{"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8},
}
"""Bytes of a value of each type."""


class Raw(NamedTuple):
    """The values in C order, little endian."""

    kind: str
    """A key of `SIZES`."""
    shape: tuple[int, ...]
    data: bytes | memoryview

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * SIZES[self.kind]

    def array(self) -> np.ndarray:
        """The same values; bfloat16, the upper half of float32, becomes float32. Not to be written to."""
        if self.kind == "bfloat16":
            halves = np.frombuffer(self.data, "<u2").astype(np.uint32)
            return (halves << 16).view(np.float32).reshape(self.shape)
        return np.frombuffer(self.data, np.dtype(self.kind).newbyteorder("<")).reshape(self.shape)
