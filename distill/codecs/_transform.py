"""The base of codecs that turn integers into other integers, and leave the bytes to the next stage."""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import numpy as np

from distill.codecs import _frame
from distill.codecs._frame import Reader, number
from distill.errors import ArtifactError

MOST_STREAMS = 64


@runtime_checkable
class Coder(Protocol):
    """Integers in, bytes out, exactly invertible."""

    def encode(self, codes: np.ndarray) -> bytes:
        """The codes, their type and shape as bytes."""

    def decode(self, data: bytes) -> np.ndarray:
        """What `encode` was given.

        Raises:
            ArtifactError: the stream is damaged.
        """


class Transform(ABC):
    """One integer array becomes one or several, which `Chain` gives to the next stage, and back.

    Type and shape of the array are kept for it. It is never given an empty array, nor one without axes.
    """

    @abstractmethod
    def split(self, codes: np.ndarray) -> tuple[bytes, list[np.ndarray]]:
        """A few bytes that the next stage does not see, and up to 64 integer arrays that it codes.

        Args:
            codes: integers in C order.
        """

    @abstractmethod
    def join(self, head: Reader, streams: list[np.ndarray], dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """The inverse of `split`, from streams that may be damaged: they may have any number, type, shape and values.

        Raises:
            ArtifactError, IndexError, ValueError: they are none that `split` gives.
        """

    def encode(self, codes: np.ndarray) -> bytes:
        return encode(self, codes, _plain())

    def decode(self, data: bytes) -> np.ndarray:
        return decode(self, data, _plain())


def encode(transform: Transform, codes: np.ndarray, rest: Coder) -> bytes:
    """The stream of ``codes``, whose parts ``rest`` codes."""

    def write(codes: np.ndarray) -> bytes:
        head, streams = transform.split(np.atleast_1d(codes))
        parts = [head, *map(rest.encode, streams)]
        return b"".join(number(len(part)) + part for part in parts)

    return _frame.encode(codes, write)


def decode(transform: Transform, data: bytes, rest: Coder) -> np.ndarray:
    """The inverse of `encode`.

    Raises:
        ArtifactError: the stream is damaged.
    """

    def read(reader: Reader, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        head = Reader(reader.take(reader.number()))
        parts: list[np.ndarray] = []
        while reader.left and len(parts) < MOST_STREAMS:
            parts.append(rest.decode(reader.take(reader.number())))
        try:
            return transform.join(head, parts, dtype, shape or (1,)).reshape(shape)
        except (IndexError, ValueError) as error:
            raise ArtifactError(f"a coded stream is damaged: {error}") from None

    return _frame.decode(data, read)


def _plain() -> Coder:
    from distill.codecs.packed import Packed

    return Packed()
