"""IDX, the file format of MNIST and of Fashion-MNIST, which even share their files' names.

LeCun, Cortes, Burges: The MNIST database of handwritten digits, "file formats" at its end.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from distill.data._find import Origin
from distill.data._in_memory import Labelled
from distill.errors import DataError

FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
LARGEST = 2**31
"""Bytes: three times EMNIST, the largest set in this format."""
# By file name nothing tells one set from the other.
FIRST_LABELS = {"MNIST": [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], "Fashion-MNIST": [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]}


def read(origin: Origin, folder: Path) -> tuple[Labelled, Labelled]:
    """Training and test set, grey images of 10 classes, from the four files, each plain or with .gz.

    Raises:
        DataError: a file is missing, damaged or of another data set; the message names it.
    """
    train, test = _read_part(folder, "train"), _read_part(folder, "t10k")
    for title, labels in FIRST_LABELS.items():
        if title != origin.title and train.labels[:10].tolist() == labels:
            raise DataError(f"{folder} holds {title}, not {origin.title}: name another folder with data.root=FOLDER")
    return train, test


def _read_part(folder: Path, part: str) -> Labelled:
    images = read_idx(folder / f"{part}-images-idx3-ubyte", dimensions=3)
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte", dimensions=1)
    if len(images) != len(labels) or not len(labels):
        raise DataError(f"{folder}: {len(images)} images but {len(labels)} labels in {part}-*; get both files again")
    if labels.max() > 9:
        raise DataError(f"{folder}/{part}-labels-idx1-ubyte: label {labels.max()} of 10 classes; get the file again")
    return Labelled(images[:, None], labels.long())


def read_idx(path: Path, dimensions: int) -> UInt8[Tensor, "..."]:
    """The array of bytes in an IDX file, or in that file with .gz. No more is unpacked than the header announces."""
    if not path.is_file():
        path = path.with_name(f"{path.name}.gz")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 * (1 + dimensions))
            shape = _shape(path, header, dimensions)
            content = file.read(math.prod(shape) + 1)
    except FileNotFoundError:
        raise DataError(f"{path} is missing (with or without .gz); put it beside the others") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); get it again") from None
    if len(content) != math.prod(shape):
        size = "more" if len(content) > math.prod(shape) else len(content)
        raise DataError(f"{path} is damaged: {size} bytes for an array of shape {shape}; get it again")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(shape)


def _shape(path: Path, header: bytes, dimensions: int) -> tuple[int, ...]:
    if len(header) < 4 * (1 + dimensions) or header[:4] != bytes([0, 0, 8, dimensions]):  # 8: unsigned bytes
        raise DataError(f"{path} is no IDX file of {dimensions}-dimensional bytes; get it again")
    shape = tuple(np.frombuffer(header, ">u4", offset=4).tolist())
    if not 0 < math.prod(shape) <= LARGEST:
        raise DataError(f"{path} is damaged: an array of shape {shape}, of up to {LARGEST} bytes; get it again")
    return shape
