"""One tap's outputs on disk: a memory-mapped row for every view of every sample, and each row's checksum.

A checksum is written after its row and covers the input too. It distinguishes good rows from those that were never
written, were cut short, were damaged, or are the outputs for another input; these are computed again.
"""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from distill.errors import DistillError
from distill.files import sealed
from distill.training.cache._coding import Coding, Rows, coding

TAP = "tap"
Positions = Int64[np.ndarray, " batch"]


class Outputs:
    """Opens the files that `reserve` made.

    Args:
        path: the files' common name, without a suffix.
        rows: how many there are.

    Raises:
        DamagedFileError: a file is missing, or is not what `reserve` made.
    """

    def __init__(self, path: Path, rows: int) -> None:
        header = sealed.read(_header(path)) or {}
        if header.get(TAP) != path.name:
            raise sealed.DamagedFileError(f"{_header(path)} is not the header of these outputs")
        self.coding = coding(header["coding"])
        _check_size(_data(path), rows * self.coding.nbytes)
        _check_size(_checks(path), rows * np.dtype(np.uint32).itemsize)
        self.data = np.memmap(_data(path), np.uint8, "r+", shape=(rows, self.coding.nbytes))
        self.checks = np.memmap(_checks(path), np.uint32, "r+", shape=(rows,))

    def read(self, rows: Positions) -> Rows:
        return np.take(self.data, rows, axis=0)

    def write(self, rows: Positions, inputs: Sequence[int], encoded: Rows) -> None:
        self.checks[rows] = 0
        self.data[rows] = encoded
        self.checks[rows] = _checksums(encoded, inputs)

    def written(self, rows: Positions) -> Bool[np.ndarray, " batch"]:
        """Which rows were ever written, good or damaged."""
        return self.checks[rows] != 0

    def intact(self, rows: Positions, inputs: Sequence[int]) -> Bool[np.ndarray, " batch"]:
        """Which rows are whole and of these inputs."""
        return self.checks[rows] == _checksums(self.read(rows), inputs)


def exists(path: Path) -> bool:
    """Whether `reserve` has finished here."""
    return _header(path).is_file()


def size(coding: Coding, rows: int) -> int:
    """Bytes that `reserve` takes."""
    return rows * (coding.nbytes + np.dtype(np.uint32).itemsize)


def reserve(path: Path, coding: Coding, rows: int) -> None:
    """Make the files, all rows absent, and take their room on the disk now.

    Raises:
        OSError: there is too little.
    """
    try:
        _allocate(_data(path), rows * coding.nbytes)
        _allocate(_checks(path), rows * np.dtype(np.uint32).itemsize)
    except OSError:
        discard(path)
        raise
    sealed.write(_header(path), {TAP: path.name, "coding": coding.to_json()})


def discard(path: Path) -> None:
    """Remove what `reserve` made; a process that has it open keeps its own view of it."""
    for file in (_header(path), _data(path), _checks(path)):
        file.unlink(missing_ok=True)


def _check_size(path: Path, size: int) -> None:
    if path.is_dir():
        raise DistillError(f"{path} is a folder where a cache has a file: remove it, or name another cache.folder")
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        raise sealed.DamagedFileError(f"{path} is {'missing' if found is None else f'{found} bytes and not {size}'}")


def _allocate(path: Path, size: int) -> None:
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            # Writing to the map of a file with holes kills the process on a full disk.
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


def _checksums(rows: Rows, seeds: Sequence[int]) -> np.ndarray:
    # 0 says that a row is absent, so the one in four billion that is 0 by chance becomes 1.
    return np.array([zlib.crc32(row, seed) or 1 for row, seed in zip(rows, seeds, strict=True)], np.uint32)


def _data(path: Path) -> Path:
    return path.with_name(f"{path.name}.rows")


def _checks(path: Path) -> Path:
    return path.with_name(f"{path.name}.checks")


def _header(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
