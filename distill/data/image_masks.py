"""Any folder of pictures and of masks, one class for each pixel: for segmentation."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors

from distill.batch import IGNORED
from distill.data import data
from distill.data._sample_data import Part, SampleData, crop_and_flip, photographs
from distill.data._samples import Sample
from distill.data._scan import check_once, pictures_below
from distill.data.decoding import UPRIGHT, check_size, open_picture, orientation, shown
from distill.data.pictures import file_identity, split_folders
from distill.errors import DataError, RecipeError
from distill.registry.ranges import BelowOne, Count, Fraction, Index

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskedPictures:
    """Pictures, each with a mask of its size."""

    root: Path
    pairs: Sequence[tuple[Path, Path]]
    num_classes: int
    classes: None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, position: int) -> Sample:
        """The label is a tv_tensors.Mask (height, width) of uint8."""
        path, mask_path = self.pairs[position]
        picture, mask = open_picture(path), read_mask(mask_path, self.num_classes)
        check_size(path, (picture.height, picture.width), mask.shape, f"{shown(mask_path)} is of")
        return Sample((picture,), mask)

    def identity(self, position: int) -> bytes:
        return b"\t".join(file_identity(self.root, path) for path in self.pairs[position])

    def check(self) -> set[int]:
        """The numbers in its masks, `IGNORED` among them where it occurs.

        Raises:
            DataError: a picture or a mask is damaged, or they do not fit each other.
        """
        files = [path for pair in self.pairs for path in pair]
        return check_once(f"numbers in masks of {self.num_classes} classes", range(len(self)), self._numbers, files)

    def _numbers(self, position: int) -> list[int]:
        numbers: list[int] = self.read(position).label.unique().tolist()
        return numbers


@data("image_masks")
class ImageMasks(SampleData):
    """``root/images/x.jpg`` with ``root/masks/x.png``, in sub-folders too; labels of a batch are int64 (batch, height,
    width), 255 where a pixel has no class.

    Masks hold the number of a class for each pixel, as grey values or as indices of a palette. A fraction is held out
    as the test set, and one of the others for validation. Where ``root`` holds the folders 'train' and 'test', and
    perhaps 'val', each of them with 'images' and 'masks', those are the splits.
    """

    def __init__(
        self,
        seed: int,
        *,
        root: Path,
        classes: list[str],
        batch_size: Count = 16,
        val: BelowOne = 0.1,
        test: BelowOne = 0.1,
        limit: Count | None = None,
        image_size: Count = 256,
        crop: bool = True,
        smallest_crop: Fraction = 0.25,
        flip: bool = True,
        workers: Index = 4,
    ) -> None:
        if not 1 < len(classes) <= IGNORED or len(set(classes)) < len(classes):
            raise RecipeError(f"data.classes={classes}: 2 to {IGNORED} different names, by the numbers in masks")
        root = root.expanduser()
        folders = split_folders(root)
        parts = {part: MaskedPictures(root, _pairs(folder), len(classes)) for part, folder in folders.items()}
        check_masks(parts, classes)
        info = photographs(image_size, tuple(classes), whole=True)
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


def check_masks(parts: Mapping[Part, MaskedPictures], class_names: Sequence[str]) -> None:
    """Read every picture and mask once, and warn of classes that no training mask holds.

    Raises:
        DataError: a picture or a mask is damaged, they do not fit each other, or training masks hold one class alone.
    """
    found = {part: reader.check() for part, reader in parts.items()}["train"]
    held = [name for number, name in enumerate(class_names) if number in found]
    if len(held) == 1:
        ignored = f"; pixels of {IGNORED} have no class: give those of an object its number" if IGNORED in found else ""
        raise DataError(f"{parts['train'].root}: training masks hold one class alone, '{held[0]}'{ignored}")
    if absent := [name for name in class_names if name not in held]:
        log.warning(
            "%d of the %d classes are in no training mask, '%s' among them: the network does not learn them",
            *(len(absent), len(class_names), absent[0]),
        )


def read_mask(path: Path, num_classes: int) -> tv_tensors.Mask:
    """The class of each pixel, uint8 (height, width), upright as its picture is; 255 where there is none.

    Raises:
        DataError: the file is damaged, in colours, holds a number that is no class, or no class at all.
    """
    try:
        with Image.open(path) as file:
            held, mode = orientation(file), file.mode
            values = np.array(file.transpose(UPRIGHT[held]) if held in UPRIGHT else file)
    except Exception as error:  # Pillow's readers of damaged files fail in many ways
        raise DataError(f"{shown(path)} is no readable mask ({error}); replace or remove it") from None
    if values.ndim != 2 or values.dtype.kind == "f":
        raise DataError(f"{shown(path)} is of mode {mode}: a mask holds one number a pixel, grey or by a palette")
    found = sorted({*np.unique(values).tolist()} - {IGNORED})
    if wrong := [number for number in found if not 0 <= number < num_classes]:
        raise DataError(f"{shown(path)}: class {wrong[0]} of {num_classes}; pixels without a class are {IGNORED}")
    if not found:
        raise DataError(f"{shown(path)}: no pixel has a class, all are {IGNORED}; remove it and its picture")
    return tv_tensors.Mask(torch.from_numpy(values.astype(np.uint8)))


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Pictures with the masks of the same name, whatever its ending."""
    images, masks = folder / "images", folder / "masks"
    if not images.is_dir() or not masks.is_dir():
        raise DataError(f"{folder} should hold 'images' and 'masks', each with files of the same names")
    pictures, by_name = _by_name(images), _by_name(masks)
    for name, path in pictures.items():
        if name not in by_name:
            raise DataError(f"{shown(path)} has no mask of its name in {masks}")
    if not pictures:
        raise DataError(f"{images} holds no pictures")
    return [(path, by_name[name]) for name, path in pictures.items()]


def _by_name(folder: Path) -> dict[Path, Path]:
    """The pictures below a folder, by their names without endings."""
    found: dict[Path, Path] = {}
    for path in pictures_below(folder):
        if (first := found.setdefault(path.relative_to(folder).with_suffix(""), path)) != path:
            raise DataError(f"{shown(first)} and {shown(path)} have one name; remove or rename one of them")
    return found
