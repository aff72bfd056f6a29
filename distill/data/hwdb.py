"""Handwritten Chinese characters of CASIA, in files of their own format, .gnt.

Liu, Yin, Wang, Wang: CASIA Online and Offline Chinese Handwriting Databases, ICDAR 2011. The files are given out for
research on request.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2

from distill.data import data
from distill.data._distort import affine
from distill.data._sample_data import SampleData
from distill.data._samples import Sample
from distill.data._scan import files_called, is_folder
from distill.data.decoding import shown
from distill.data.info import DataInfo
from distill.data.preprocessing import Preprocessing
from distill.errors import DataError
from distill.registry.ranges import BelowOne, Count, Index

HEADER = np.dtype([("size", "<u4"), ("code", "S2"), ("width", "<u2"), ("height", "<u2")])
"""Of each character: bytes of its record, GBK code, and then its pixels, 255 where there is no ink."""
REMEDY = "; unpack the file again, or remove it"
FOLDERS = {"train": ("train", "HWDB1.1trn_gnt"), "test": ("test", "HWDB1.1tst_gnt")}


class Record(NamedTuple):
    """Where the pixels of one character are."""

    file: int
    offset: int
    height: int
    width: int
    checksum: int
    """Of code and pixels: the size of a file says nothing of them."""


@dataclass(frozen=True)
class Characters:
    """Characters of .gnt files, each on a white square."""

    root: Path
    files: Sequence[Path]
    records: Sequence[Record]
    classes: Int64[Tensor, " samples"]

    def __len__(self) -> int:
        return len(self.records)

    def read(self, position: int) -> Sample:
        record = self.records[position]
        pixels = np.fromfile(self.files[record.file], np.uint8, record.height * record.width, offset=record.offset)
        if pixels.size < record.height * record.width:
            raise DataError(f"{shown(self.files[record.file])} has become shorter since it was first read")
        side = max(record.height, record.width)
        picture = Image.fromarray(pixels.reshape(record.height, record.width))
        return Sample((ImageOps.pad(picture, (side, side), color=255),), int(self.classes[position]))

    def identity(self, position: int) -> bytes:
        record = self.records[position]
        return os.fsencode(os.path.relpath(self.files[record.file], self.root)) + repr(record).encode()


@data("hwdb")
class HWDB(SampleData):
    """``root/train/*.gnt`` and ``root/test/*.gnt``, or HWDB1.1trn_gnt and HWDB1.1tst_gnt; grey, one class for each
    character of the training set.

    ``distort`` turns, shifts, scales and shears those of the training set, anew in every epoch.
    """

    def __init__(
        self,
        seed: int,
        *,
        root: Path,
        batch_size: Count = 128,
        val: BelowOne = 0.02,
        limit: Count | None = None,
        image_size: Count = 64,
        distort: bool = True,
        workers: Index = 4,
    ) -> None:
        root = root.expanduser()
        train, names = _read(root, "train", None)
        test, _ = _read(root, "test", names)
        size = (image_size, image_size)
        resize = v2.Resize(list(size))
        super().__init__(
            seed,
            {"train": train, "test": test},
            info=DataInfo(1, size, (0.5,), (0.5,), names, preprocessing=Preprocessing("L", size).to_json()),
            augmentation=[resize, affine()] if distort else [resize],
            val=val,
            limit=limit,
            batch_size=batch_size,
            workers=workers,
        )


def _read(root: Path, part: str, names: tuple[str, ...] | None) -> tuple[Characters, tuple[str, ...]]:
    folders = [root / name for name in FOLDERS[part] if is_folder(root / name)]
    files = [path for folder in folders[:1] for path in files_called(folder, "*.gnt").values()]
    if not files:
        raise DataError(
            f"{shown(root)} (data.root) holds no .gnt files in '{FOLDERS[part][0]}' or '{FOLDERS[part][1]}'"
        )
    found = [(character, record) for file in range(len(files)) for character, record in _records(files, file)]
    names = names or tuple(sorted({character for character, _ in found}))
    if len(names) == 1:
        raise DataError(f"{shown(folders[0])} holds one character, '{names[0]}': classification needs at least two")
    labels = {name: label for label, name in enumerate(names)}
    for character, record in found:
        if character not in labels:
            raise DataError(
                f"{shown(files[record.file])}: '{character}' is no character of the training set; remove the file"
            )
    classes = torch.tensor([labels[character] for character, _ in found], dtype=torch.int64)
    return Characters(root, files, [record for _, record in found], classes), names


def _records(files: Sequence[Path], file: int) -> Iterator[tuple[str, Record]]:
    """Character and place of each record of one file.

    Raises:
        DataError: the file is damaged; the message names it and the place.
    """
    path = files[file]
    try:
        content = np.memmap(path, np.uint8, "r")
    except (OSError, ValueError) as error:
        raise DataError(f"{shown(path)} cannot be read ({error}){REMEDY}") from None
    offset = 0
    while offset < len(content):
        head = content[offset : offset + HEADER.itemsize].tobytes()
        place = f"{shown(path)} is damaged at byte {offset}"
        if len(head) < HEADER.itemsize:
            raise DataError(f"{place}: it ends within a header{REMEDY}")
        size, code, width, height = np.frombuffer(head, HEADER)[0].item()
        pixels = width * height
        end = offset + size
        if not pixels or size != HEADER.itemsize + pixels or end > len(content):
            raise DataError(f"{place}: a record of {size} bytes for {width}x{height} pixels{REMEDY}")
        checksum = crc32(content[offset:end].data)
        yield _character(code, place), Record(file, offset + HEADER.itemsize, height, width, checksum)
        offset = end


def _character(code: bytes, place: str) -> str:
    character = code.decode("gbk", "replace")  # NumPy has cut NULs off at the end
    if len(character) != 1 or character == "\ufffd" or character.isspace() or not character.isprintable():
        raise DataError(f"{place}: {code!r} is no character of GBK{REMEDY}")
    return character
