"""Pictures in one folder for each class: a user's own, or ImageNet."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor
from torchvision.transforms import v2

from distill.data import data
from distill.data._rand_augment import OPERATIONS, Magnitude
from distill.data._sample_data import PARTS, Part, SampleData, crop_and_flip, photographs
from distill.data._samples import Sample
from distill.data._scan import check_pictures, is_folder, pictures_below, subfolders
from distill.data.decoding import open_picture
from distill.data.pictures import file_identity
from distill.errors import DataError
from distill.registry.ranges import BelowOne, Count, Fraction, Index


@dataclass(frozen=True)
class ClassFolders:
    """Picture files and their classes."""

    root: Path
    class_names: tuple[str, ...]
    files: tuple[Path, ...]
    classes: Int64[Tensor, " samples"]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, position: int) -> Sample:
        return Sample((open_picture(self.files[position]),), int(self.classes[position]))

    def identity(self, position: int) -> bytes:
        return file_identity(self.root, self.files[position]) + f"\t{self.classes[position]}".encode()


@data("image_folder")
class ImageFolder(SampleData):
    """``root/train/<class>/*.jpg`` and ``root/val/<class>/*.jpg``, as ImageNet comes.

    ``val`` is then the test set, and a fraction of ``train`` is held out for validation. With ``root/test`` beside
    them, ``val`` is the validation set and all of ``train`` is trained on.
    """

    def __init__(
        self,
        seed: int,
        *,
        root: Path,
        batch_size: Count = 128,
        val: BelowOne = 0.1,
        limit: Count | None = None,
        image_size: Count = 224,
        crop: bool = True,
        smallest_crop: Fraction = 0.08,
        flip: bool = True,
        rand_augment: Magnitude | None = None,
        workers: Index = 4,
    ) -> None:
        parts = _listed(root.expanduser())
        info = photographs(image_size, parts["train"].class_names)
        if "test" not in parts:
            parts["test"] = parts.pop("val")
        super().__init__(
            seed,
            dict(parts),
            info=info,
            augmentation=[
                *crop_and_flip(info, smallest_crop if crop else None, flip),
                *([] if rand_augment is None else [v2.RandAugment(OPERATIONS, rand_augment)]),
            ],
            val=val,
            limit=limit,
            batch_size=batch_size,
            workers=workers,
        )


def _listed(root: Path) -> dict[Part, ClassFolders]:
    """Every picture of 'train' and of 'val', 'test' or both."""
    there = [part for part in PARTS if is_folder(root / part)]
    if "train" not in there or len(there) == 1:
        raise DataError(f"{root} (data.root) should hold 'train' and 'val', each with a folder of pictures per class")
    parts = {part: _read_folders(root, root / part) for part in there}
    names = parts["train"].class_names
    for part, reader in parts.items():
        if differing := sorted(set(reader.class_names) ^ set(names)):
            absent = root / ("train" if differing[0] in reader.class_names else part) / differing[0]
            raise DataError(f"{absent} is missing: 'train' and '{part}' must have the same class folders")
    if len(names) == 1:
        raise DataError(f"{root / 'train'} holds one class folder, '{names[0]}': classification needs at least two")
    check_pictures([path for reader in parts.values() for path in reader.files])
    return parts


def _read_folders(root: Path, folder: Path) -> ClassFolders:
    folders = subfolders(folder)
    if not folders:
        raise DataError(f"{folder} holds no class folders: a folder of pictures for each class")
    found = [pictures_below(path) for path in folders]
    if empty := [path for path, pictures in zip(folders, found, strict=True) if not pictures]:
        raise DataError(f"{empty[0]} holds no pictures: put some there or remove it")
    labels = torch.repeat_interleave(torch.arange(len(folders)), torch.tensor([len(pictures) for pictures in found]))
    files = tuple(path for pictures in found for path in pictures)
    return ClassFolders(root, tuple(path.name for path in folders), files, labels)
