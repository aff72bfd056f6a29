"""Data sets whose samples are read one at a time: what is held out, and what is augmented."""

import logging
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal, get_args

import torch
from torchvision.transforms import v2

from distill.data._images import ImageData
from distill.data._samples import Convert, Reader, Samples
from distill.data._split import shuffled, split
from distill.data.info import DataInfo
from distill.data.preprocessing import Preprocessing
from distill.errors import RecipeError

log = logging.getLogger(__name__)

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue, for pixels from 0 to 1: what torchvision's weights were trained with."""


class SampleData(ImageData):
    """Splits where the data set has none, and augments pictures and labels of the training set together.

    Args:
        seed: decides shuffling and augmentation; never the split.
        parts: a reader for each split that the data set has: "train" at least. Without "test", ``test`` of the
            training samples are held out for it; without "val", ``val`` of the others.
        info: what the data set says about itself; its preprocessing is what evaluation does to each sample.
        augmentation: what training does instead, after pictures are converted to the mode of the preprocessing.
        evaluation: what samples of the test set go through before their preprocessing, drawn from a seed of its own:
            always the same for each sample.
        val, test: fractions of the training samples.
        limit: how many training samples to use, those held out for validation included; None for all.
        batch_size, workers: as `ImageData`.
    """

    def __init__(
        self,
        seed: int,
        parts: dict[Part, Reader],
        *,
        info: DataInfo,
        augmentation: Sequence[v2.Transform],
        val: float,
        limit: int | None,
        batch_size: int,
        workers: int,
        test: float = 0.0,
        evaluation: Sequence[v2.Transform] = (),
    ) -> None:
        preprocessing = Preprocessing.from_json(info.preprocessing)
        convert = Convert(preprocessing.mode)
        exact, varied = v2.Compose([convert, preprocessing.geometry()]), v2.Compose([convert, *augmentation])
        train = parts["train"]
        positions = {part: torch.arange(len(reader)) for part, reader in parts.items()}
        order = shuffled(len(train), train.classes)
        if "test" not in parts:
            held_out = max(1, round(test * len(order)))
            if not 0 < test < 1 or held_out >= len(order):
                raise RecipeError(
                    f"data.test={test} of {len(order)} samples: above 0, and some must be left to train on"
                )
            positions["test"], order = order[:held_out].sort().values, order[held_out:]
        positions["train"], for_validation = split(order, limit, 0.0 if "val" in parts else val)
        positions.setdefault("val", for_validation)

        def samples(part: Part, transform: v2.Transform, seed: int = 0) -> Samples:
            return Samples(parts.get(part, train), positions[part], transform, info, seed)

        super().__init__(
            seed,
            samples("train", varied, seed),
            samples("train", exact),
            samples("val", exact),
            samples("test", v2.Compose([convert, *evaluation, preprocessing.geometry()])),
            info=info,
            batch_size=batch_size,
            workers=workers,
        )


def warn_of_shared(pictures: Mapping[Part, Sequence[Path]]) -> None:
    """Say how many pictures are in two lists: what is trained on, a network remembers."""
    for one, other in combinations(pictures, 2):
        if both := set(pictures[one]) & set(pictures[other]):
            log.warning(
                "%d of the %d pictures of the '%s' split are in the '%s' split as well, '%s' among them: results there "
                "say little of new pictures",
                *(len(both), len(pictures[other]), other, one, min(both).name),
            )


def photographs(image_size: int, class_names: tuple[str, ...] = (), *, whole: bool = False) -> DataInfo:
    """What a set of colour pictures of any size says about itself.

    Args:
        image_size: height and width.
        class_names: empty where there are no classes.
        whole: pictures are stretched to the square, since labels are for all of it; without, they are evaluated as
            ImageNet is, where 224 pixels are the centre of 256.
    """
    if image_size < 1:
        raise RecipeError(f"data.image_size={image_size} must be at least 1")
    size = (image_size, image_size)
    preprocessing = Preprocessing(resize=size) if whole else Preprocessing(resize=round(image_size / 0.875), crop=size)
    return DataInfo(3, size, IMAGENET_MEAN, IMAGENET_STD, class_names, preprocessing=preprocessing.to_json())


def crop_and_flip(info: DataInfo, smallest: float | None, flip: bool) -> list[v2.Transform]:
    """Random resized crops and mirroring.

    Random resized crops: Szegedy et al., Going Deeper with Convolutions, arXiv:1409.4842, section 6.

    Args:
        info: of the size of crops.
        smallest: the smallest share of a picture that a crop shows; None for the same crop as in evaluation.
        flip: whether to mirror left and right with probability 1/2.
    """
    if smallest is not None and not 0 < smallest <= 1:
        raise RecipeError(f"data.smallest_crop={smallest} is a share of the picture: above 0, at most 1")
    whole = Preprocessing.from_json(info.preprocessing).geometry()
    crop = whole if smallest is None else v2.RandomResizedCrop(info.image_size, scale=(smallest, 1.0))
    return [crop, v2.RandomHorizontalFlip()] if flip else [crop]
