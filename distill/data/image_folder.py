"""Pictures in one folder for each class: a user's own, or ImageNet.

Random resized crops: Szegedy et al., Going Deeper with Convolutions, arXiv:1409.4842, section 6.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor
from torchvision.transforms import v2

from distill.data import data
from distill.data._images import ImageData
from distill.data._samples import Sample, Samples, augmentation, evaluation
from distill.data._scan import check_headers, pictures_below, subfolders
from distill.data._split import shuffled, split
from distill.data.info import DataInfo
from distill.data.pictures import open_picture
from distill.data.preprocessing import Preprocessing
from distill.errors import DataError, RecipeError


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
        path = self.files[position]
        name = os.fsencode(path.relative_to(self.root))
        return name + f"\t{path.stat().st_size}\t{self.classes[position]}".encode()


@data("image_folder")
class ImageFolder(ImageData):
    """``root/train/<class>/*.jpg`` and ``root/val/<class>/*.jpg``, as ImageNet comes.

    ``val`` is then the test set, and a fraction of ``train`` is held out for validation. With ``root/test`` beside
    them, ``val`` is the validation set and all of ``train`` is trained on.
    """

    def __init__(
        self,
        seed: int,
        *,
        root: Path,
        batch_size: int = 128,
        val: float = 0.1,
        limit: int | None = None,
        image_size: int = 224,
        crop: bool = True,
        smallest_crop: float = 0.08,
        flip: bool = True,
        workers: int = 4,
    ) -> None:
        if image_size < 1 or workers < 0 or not 0 < smallest_crop <= 1:
            raise RecipeError(
                f"data.image_size={image_size} must be at least 1, data.workers={workers} at least 0, "
                f"data.smallest_crop={smallest_crop} a share of the picture: above 0, at most 1"
            )
        # 224 pixels are the centre of 256.
        preprocessing = Preprocessing(resize=round(image_size / 0.875), crop=(image_size, image_size))
        parts = _listed(root.expanduser())
        info = DataInfo(
            channels=3,
            image_size=(image_size, image_size),
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            class_names=parts["train"].class_names,
            preprocessing=preprocessing.to_json(),
        )
        val_is_given = {"val", "test"} <= parts.keys()
        whole = {
            part: Samples(reader, torch.arange(len(reader)), evaluation(preprocessing), info, seed)
            for part, reader in parts.items()
        }
        order = shuffled(len(whole["train"]), parts["train"].classes)
        for_training, for_validation = split(order, limit, 0.0 if val_is_given else val)
        plain = replace(whole["train"], chosen=for_training)
        anywhere = v2.RandomResizedCrop(image_size, scale=(smallest_crop, 1.0)) if crop else preprocessing.geometry()
        mirror = [v2.RandomHorizontalFlip()] if flip else []
        super().__init__(
            seed,
            replace(plain, transform=augmentation(preprocessing, anywhere, *mirror)),
            plain,
            whole["val"] if val_is_given else replace(plain, chosen=for_validation),
            whole["test"] if "test" in parts else whole["val"],
            info=info,
            batch_size=batch_size,
            workers=workers,
        )


def _listed(root: Path) -> dict[str, ClassFolders]:
    """Every picture of 'train' and of 'val', 'test' or both."""
    there = [part for part in ("train", "val", "test") if (root / part).is_dir()]
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
    check_headers([path for reader in parts.values() for path in reader.files])
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
