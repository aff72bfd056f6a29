"""Boxes around objects, as readers give them and as training augments them with their picture."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from distill.data._sample_data import photographs
from distill.data._samples import Sample
from distill.data.decoding import shown
from distill.data.info import DataInfo
from distill.errors import DataError

Invalid = Literal["refuse", "skip"]
"""What to do with a box that is outside of its image or empty."""
ROUNDING = 1.0
"""Pixels by which annotators' boxes overlap the edge: COCO's have decimals, VOC's count from 1."""


class Box(NamedTuple):
    """One object in one picture, in pixels from the upper left corner."""

    left: float
    top: float
    right: float
    bottom: float
    label: int
    ignored: bool = False
    """A crowd in COCO, a difficult object in VOC: neither asked for nor counted as an error."""


def boxes_label(boxes: Sequence[Box], height: int, width: int) -> dict[str, Tensor]:
    """The label of a sample: "boxes" (n, 4) as left, top, right, bottom, "labels" (n,) and "iscrowd" (n,), int64."""
    corners = torch.tensor([box[:4] for box in boxes], dtype=torch.float32).view(-1, 4)
    return {
        "boxes": tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=(height, width)),
        "labels": torch.tensor([box.label for box in boxes], dtype=torch.int64),
        "iscrowd": torch.tensor([box.ignored for box in boxes], dtype=torch.int64),
    }


def checked(box: Box, height: int, width: int, invalid: Invalid, path: Path, entry: str) -> Box | None:
    """The box within its image; None for one that is skipped.

    Raises:
        DataError: the box is outside of its image or empty; the message names file and entry.
    """
    inside = min(box.left, box.top) >= -ROUNDING and box.right <= width + ROUNDING and box.bottom <= height + ROUNDING
    clipped = box._replace(
        left=max(box.left, 0.0), top=max(box.top, 0.0), right=min(box.right, width), bottom=min(box.bottom, height)
    )
    if inside and clipped.right > clipped.left and clipped.bottom > clipped.top:
        return clipped
    if invalid == "skip":
        return None
    corners = ", ".join(f"{value:g}" for value in box[:4])
    what = "is empty" if inside else f"leaves its image of {width}x{height}"
    raise DataError(f"{shown(path)}: {entry}: box ({corners}) {what}; correct it or set data.invalid=skip")


def check_objects(boxes: Iterable[Sequence[Box]], path: Path) -> None:
    """Raises: DataError: there is nothing to find in the pictures that a file lists."""
    found = [box for each in boxes for box in each]
    if all(box.ignored for box in found):
        others = " but crowds and difficult ones" if found else ""
        raise DataError(f"{shown(path)}: its pictures hold no objects{others}; a detector needs some to find")


def detection_info(image_size: int, class_names: tuple[str, ...]) -> DataInfo:
    """Colour pictures stretched to a square, as SSD reads them."""
    return photographs(image_size, class_names, whole=True)


def box_augmentation(info: DataInfo, crop: bool, flip: bool) -> list[v2.Transform]:
    """Crops that overlap an object, and mirroring; boxes of objects that are cropped away go.

    Liu et al., SSD: Single Shot MultiBox Detector, arXiv:1512.02325, section 2.2, "Data augmentation".
    """
    return [
        *([_CropAroundBoxes()] if crop else []),
        v2.Resize(list(info.image_size)),
        *([v2.RandomHorizontalFlip()] if flip else []),
        v2.SanitizeBoundingBoxes(min_size=1, labels_getter=_of_each_box),
    ]


class _CropAroundBoxes(v2.RandomIoUCrop):
    """Leaves a picture without objects as it is: there is nothing that a crop could overlap; and one of three pixels or
    fewer, of which torchvision's smallest crop, three tenths of a side, has none."""

    def forward(self, *inputs: Any) -> Any:
        sample = Sample(*inputs[0])
        fits = len(sample.label["boxes"]) and min(sample.pictures[0].size) > 3
        return super().forward(sample) if fits else sample


def _of_each_box(sample: Any) -> tuple[Tensor, Tensor]:
    label = Sample(*sample).label
    return label["labels"], label["iscrowd"]
