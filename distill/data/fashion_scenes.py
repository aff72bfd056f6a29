"""Articles of Fashion-MNIST in front of photographs, with exact boxes and masks: detection without a download."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors

from distill.data import data
from distill.data._boxes import Box, box_augmentation, boxes_label, detection_info
from distill.data._generated import Generated, content_of, random_crop, train_and_test
from distill.data._in_memory import Store
from distill.data._photographs import Collection
from distill.data._sample_data import SampleData, crop_and_flip
from distill.data._samples import Sample
from distill.data.digits import Digits
from distill.data.fashion_mnist import FashionMNIST
from distill.data.info import chosen_classes
from distill.errors import RecipeError
from distill.registry.ranges import BelowOne, Count, Index

SMALLEST, LARGEST = 0.25, 0.5
"""Sides of an article, as a share of the picture's."""
OVERLAP = 0.25
"""Intersection over union of two boxes, at most."""
TRIES = 10
"""To place an article where it overlaps no other one by more."""


@dataclass(frozen=True)
class Scenes:
    """Makes pictures of one to ``objects`` articles: tinted, turned, partly in front of each other."""

    photos: list[Image.Image]
    articles: Store
    size: int
    objects: int
    labels: Literal["boxes", "masks"]

    def __call__(self, random: np.random.Generator) -> Sample:
        picture = random_crop(self.photos, self.size, random)
        mask = np.zeros((self.size, self.size), np.uint8)
        boxes: list[Box] = []
        for _ in range(random.integers(1, self.objects + 1)):
            self._add(picture, mask, boxes, random)
        if self.labels == "masks":
            return Sample((picture,), tv_tensors.Mask(torch.from_numpy(mask)))
        return Sample((picture,), boxes_label(boxes, self.size, self.size))

    def _add(self, picture: Image.Image, mask: np.ndarray, boxes: list[Box], random: np.random.Generator) -> None:
        """Paint an article on ``picture`` and on ``mask``, and add its box."""
        which = int(random.integers(len(self.articles)))
        label, grey = int(self.articles.classes[which]), Image.fromarray(self.articles.images[which, 0].numpy())
        side = round(self.size * random.uniform(SMALLEST, LARGEST))
        grey = grey.resize((side, side), Image.Resampling.BICUBIC)
        grey = grey.rotate(random.uniform(-30, 30), Image.Resampling.BILINEAR, expand=True)
        values = np.asarray(grey).astype(np.float32) / 255
        alpha = np.clip(values * 4, 0, 1)
        tint = random.uniform(0.2, 1.0, 3)
        colour = Image.fromarray(((0.3 + 0.7 * values)[..., None] * tint * 255).astype(np.uint8))
        solid = alpha > 0.5
        rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
        if not len(rows) or max(grey.size) > self.size:
            return
        for _ in range(TRIES):
            left, top = (int(random.integers(self.size - length + 1)) for length in grey.size)
            right, bottom = float(left + columns[-1] + 1), float(top + rows[-1] + 1)
            box = Box(float(left + columns[0]), float(top + rows[0]), right, bottom, label)
            if all(_overlap(box, other) <= OVERLAP for other in boxes):
                break
        else:
            return
        picture.paste(colour, (left, top), Image.fromarray((alpha * 255).astype(np.uint8)))
        mask[top : top + grey.height, left : left + grey.width][solid] = label + 1
        boxes.append(box)


@data("fashion_scenes")
class FashionScenes(SampleData):
    """Pictures of ``samples`` random scenes to train on and ``test_samples`` to test with, the same for every seed.

    With ``labels: boxes``, labels of a batch are those of `coco`, a box around all of an article also where another one
    is in front of it; with ``masks``, those of `image_masks`, 0 for the background. Articles and photographs of the
    test set are not those of the training set.

    ``classes`` names those that articles are taken from, all of them if left out. ``articles: digits`` needs nothing
    but scikit-learn. ``root`` is a folder of photographs of your own; without it they are the two of scikit-learn, or
    with ``photographs: debian`` also 68 of Debian's packages.
    """

    def __init__(
        self,
        seed: int,
        *,
        labels: Literal["boxes", "masks"] = "boxes",
        articles: Literal["fashion_mnist", "digits"] = "fashion_mnist",
        classes: list[str] | None = None,
        root: Path | None = None,
        photographs: Collection = "scikit-learn",
        samples: Count = 4000,
        test_samples: Count = 400,
        objects: Count = 3,
        batch_size: Count = 16,
        val: BelowOne = 0.1,
        limit: Count | None = None,
        image_size: Count = 128,
        crop: bool = True,
        flip: bool = True,
        workers: Index = 2,
    ) -> None:
        if image_size < 16:
            raise RecipeError(f"data.image_size={image_size}: articles need pictures of at least 16 pixels")
        source = FashionMNIST(0, val=0.0) if articles == "fashion_mnist" else Digits(0, val=0.0)
        names = chosen_classes(classes, source.info.class_names)
        train, test = (_of_classes(store, source.info.class_names, names) for store in (source.plain, source.test))
        info = detection_info(image_size, names if labels == "boxes" else ("background", *names))
        make = partial(_scenes, size=image_size, objects=objects, labels=labels)
        train_photos, test_photos = train_and_test(root or photographs)
        super().__init__(
            seed,
            {
                "train": make(train_photos, train, samples, 1),
                "test": make(test_photos, test, test_samples, 2),
            },
            info=info,
            augmentation=box_augmentation(info, crop, flip)
            if labels == "boxes"
            else crop_and_flip(info, 0.25 if crop else None, flip),
            val=val,
            limit=limit,
            batch_size=batch_size,
            workers=workers,
        )


def _of_classes(articles: Store, known: tuple[str, ...], names: tuple[str, ...]) -> Store:
    """The articles of some classes, numbered by the order of their names.

    Raises:
        RecipeError: a name is unknown or twice there.
    """
    for name in names:
        if name not in known or names.count(name) > 1:
            fault = "named twice" if name in known else f"not one of {', '.join(known)}"
            raise RecipeError(f"data.classes: {name} is {fault}")
    if names == known:
        return articles
    numbers = torch.full((len(known),), -1)
    numbers[[known.index(name) for name in names]] = torch.arange(len(names))
    labels = numbers[articles.classes]
    return replace(articles, images=articles.images[labels >= 0], classes=labels[labels >= 0])


def _scenes(
    photos: list[Image.Image],
    articles: Store,
    samples: int,
    key: int,
    *,
    size: int,
    objects: int,
    labels: Literal["boxes", "masks"],
) -> Generated:
    source = content_of(photos, articles.fingerprint(), size, objects, labels)
    return Generated(Scenes(photos, articles, size, objects, labels), samples, key, source)


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [(box.right - box.left) * (box.bottom - box.top) for box in (a, b)]
    return shared / (sum(areas) - shared)
