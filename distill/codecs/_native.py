"""``loops.cpp``, compiled when first used and kept for this kind of machine; None where there is no compiler."""

import ctypes
import logging
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from distill import native
from distill.errors import DistillError

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("loops.cpp")


@cache
def library() -> ctypes.CDLL | None:
    """The compiled loops, or None, with a warning, where they cannot be compiled."""
    try:
        loops = ctypes.CDLL(str(native.built(SOURCE, native.cache_folder())))
    except (DistillError, OSError, subprocess.CalledProcessError) as error:
        log.warning(
            "codecs run in NumPy, which is slower, for the C++ compiler does not work: %s", native.reason(error)
        )
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    loops.encode.argtypes = [pointer, pointer, pointer, pointer, number, pointer, pointer]
    loops.decode.argtypes = [
        pointer, *[number] * 3, *[pointer] * 4, number, *[pointer] * 5
    ]  # fmt: skip
    loops.huffman.argtypes = [pointer, pointer, number, number, number, pointer, pointer, pointer]
    loops.spread.argtypes = [pointer, pointer, number, pointer, number, number, number, pointer]
    loops.spread.restype = None
    loops.encode.restype = loops.decode.restype = loops.huffman.restype = number
    return loops


def pointers(*arrays: np.ndarray) -> Iterator[int]:
    """Where the values of contiguous arrays are, which the caller has to keep."""
    for array in arrays:
        assert array.flags.c_contiguous
        yield array.__array_interface__["data"][0]  # faster than array.ctypes
