"""Any folder of pictures, without labels: for tasks that make their own, such as style transfer."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from distill.data import data
from distill.data._sample_data import PARTS, Part, SampleData, crop_and_flip, photographs
from distill.data._samples import Sample
from distill.data._scan import check_pictures, is_folder, pictures_below
from distill.data.decoding import open_picture
from distill.errors import DataError
from distill.registry.ranges import BelowOne, Count, Fraction, Index

PHOTOGRAPHS = (".jpg", ".jpeg", ".webp")
"""Endings of files whose size hardly stays the same when their pixels change, and which are the most numerous."""
BLOCK = 2**14
"""Bytes that are read of the beginning, the middle and the end of other files."""


@dataclass(frozen=True)
class PictureFiles:
    """Pictures without labels."""

    root: Path
    files: Sequence[Path]
    classes: None = None

    def __len__(self) -> int:
        return len(self.files)

    def read(self, position: int) -> Sample:
        return Sample((open_picture(self.files[position]),))

    def identity(self, position: int) -> bytes:
        return file_identity(self.root, self.files[position])


@data("pictures")
class Pictures(SampleData):
    """Every picture in ``root`` and below; labels of a batch are None.

    A fraction is held out as the test set, and one of the others for validation. Where ``root`` holds the folders
    'train' and 'test', and perhaps 'val', those are the splits.
    """

    def __init__(
        self,
        seed: int,
        *,
        root: Path,
        batch_size: Count = 16,
        val: BelowOne = 0.1,
        test: BelowOne = 0.1,
        limit: Count | None = None,
        image_size: Count = 256,
        crop: bool = True,
        smallest_crop: Fraction = 0.08,
        flip: bool = True,
        workers: Index = 4,
    ) -> None:
        root = root.expanduser()
        parts = {part: PictureFiles(root, pictures_below(folder)) for part, folder in split_folders(root).items()}
        for part, reader in parts.items():
            if not reader.files:
                raise DataError(f"{root} (data.root) holds no pictures to {part} with")
        check_pictures([path for reader in parts.values() for path in reader.files])
        info = photographs(image_size)
        super().__init__(
            seed,
            dict(parts),
            info=info,
            augmentation=crop_and_flip(info, smallest_crop if crop else None, flip),
            val=val,
            test=test,
            limit=limit,
            batch_size=batch_size,
            workers=workers,
        )


def split_folders(root: Path) -> dict[Part, Path]:
    """The folder of each split: 'train', 'val' and 'test' in ``root`` where there are 'train' and 'test', else ``root``
    itself to train on.

    Raises:
        DataError: there is no folder of that name, or a split is a link that leads nowhere.
    """
    if not root.is_dir():
        raise DataError(f"{root} (data.root) is no folder")
    folders: dict[Part, Path] = {part: root / part for part in PARTS if is_folder(root / part)}
    return folders if {"train", "test"} <= folders.keys() else {"train": root}


def file_identity(root: Path, path: Path) -> bytes:
    """What a fingerprint holds of a file: its name as seen from ``root``, its size and, but for `PHOTOGRAPHS`, a hash
    of three blocks of `BLOCK` bytes, which of small files are all of it.
    """
    # The size of .flo, .ppm and .bmp files follows from height and width alone, and that of a mask hardly changes when
    # two classes change places. Times of files change with every copy, and to read all of them takes minutes a run.
    size, content = path.stat().st_size, blake2b(digest_size=16)
    if path.suffix.lower() not in PHOTOGRAPHS:
        with path.open("rb", buffering=0) as file:
            for start in (0, (size - BLOCK) // 2, size - BLOCK):
                file.seek(max(start, 0))
                content.update(file.read(BLOCK))
    return os.fsencode(os.path.relpath(path, root)) + f"\t{size}\t{content.hexdigest()}".encode()
