"""One tap's answers on disk: a memory-mapped row for every view of every sample, and each row's checksum.

A checksum is written after its row and covers the very input that was answered. Rows that were never written, were cut
short, were damaged, or answer another input are told from good ones by it, and are computed anew.
"""

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from distill.atomic import replacing
from distill.training.cache._coding import Coding, Rows, coding

Positions = Int64[np.ndarray, " batch"]


class Answers:
    """Opens the files that `reserve` made.

    Args:
        path: the files' common name, without a suffix.
        rows: how many there are.
    """

    def __init__(self, path: Path, rows: int) -> None:
        self.coding = coding(json.loads(_header(path).read_text()))
        self.data = np.memmap(_data(path), np.uint8, "r+", shape=(rows, self.coding.nbytes))
        self.checks = np.memmap(_checks(path), np.uint32, "r+", shape=(rows,))

    def read(self, rows: Positions) -> Rows:
        return np.take(self.data, rows, axis=0)

    def write(self, rows: Positions, inputs: Sequence[int], answers: Rows) -> None:
        self.checks[rows] = 0
        self.data[rows] = answers
        self.checks[rows] = _checksums(answers, inputs)

    def written(self, rows: Positions) -> Bool[np.ndarray, " batch"]:
        """Which rows somebody has written, be they good or not."""
        return self.checks[rows] != 0

    def intact(self, rows: Positions, inputs: Sequence[int]) -> Bool[np.ndarray, " batch"]:
        """Which rows are whole and answer these inputs."""
        return self.checks[rows] == _checksums(self.read(rows), inputs)


def exists(path: Path) -> bool:
    """Whether `reserve` came to its end here."""
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
        _data(path).unlink(missing_ok=True)
        _checks(path).unlink(missing_ok=True)
        raise
    with replacing(_header(path)) as header:
        header.write_text(json.dumps(coding.to_json()))


def _allocate(path: Path, size: int) -> None:
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            # In a file with holes, a disk that is full kills whoever writes to the map, without a word.
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
