"""Of which kind the labels of a batch are, and whether they say anything."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from distill.batch import IGNORED

LabelKind = Literal["classes", "masks", "boxes", "flow"]
SOURCES: dict[LabelKind, str] = {
    "classes": "image_folder, or a data set of single classes",
    "masks": "image_masks, voc_masks, or fashion_scenes with labels: masks",
    "boxes": "coco, voc, or fashion_scenes with labels: boxes",
    "flow": "flying_cutouts, flying_chairs, sintel or kitti_flow",
}
"""Data sets that have labels of a kind."""
COUNTED: dict[str, str] = {
    "masks": "pixel with a class",
    "boxes": "object that is no crowd",
    "flow": "pixel with known flow",
}
"""What metrics count of a kind that may have nothing to count."""


def kind_of(labels: Any) -> LabelKind | None:
    """The kind by the form that data sets give it; None for no labels, and for those of another form."""
    match labels:
        case Tensor(ndim=1) if not labels.is_floating_point():
            return "classes"
        case Tensor(ndim=3):
            return "masks"
        case [{"boxes": _, "labels": _}, *_]:
            return "boxes"
        case Mapping() if {"flow", "valid"} <= labels.keys():
            return "flow"
    return None


def described(labels: Any) -> str:
    """What a batch's labels are, for messages."""
    return kind_of(labels) or ("none" if labels is None else "of a kind of their own")


def countable(labels: Any) -> bool:
    """Whether there is anything in a batch's labels that metrics count; of labels of another form there is."""
    match kind_of(labels):
        case "masks":
            return bool((labels != IGNORED).any())
        case "boxes":
            return any(bool((label["iscrowd"] == 0).any()) for label in labels)
        case "flow":
            return bool(labels["valid"].any())
    return True
