"""Squares of photographs, without labels: for tasks that make their own, such as style transfer."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from distill.data import _sample_data, data
from distill.data._generated import Generated, content_of, random_crop, train_and_test
from distill.data._photographs import Collection
from distill.data._sample_data import SampleData, crop_and_flip
from distill.data._samples import Sample
from distill.registry.ranges import BelowOne, Count, Fraction, Index


@dataclass(frozen=True)
class Crops:
    """Cuts a square out of a photograph, at random place and scale."""

    photos: list[Image.Image]
    size: int

    def __call__(self, random: np.random.Generator) -> Sample:
        return Sample((random_crop(self.photos, self.size, random),))


@data("photo_crops")
class PhotoCrops(SampleData):
    """``samples`` squares to train on and ``test_samples`` to test with, the same for every seed; labels are None.

    Photographs of the test set are not those of the training set. They are the two of scikit-learn, with
    ``photographs: debian`` also 68 of Debian's packages, or those of a folder (``root``).
    """

    def __init__(
        self,
        seed: int,
        *,
        root: Path | None = None,
        photographs: Collection = "scikit-learn",
        samples: Count = 2000,
        test_samples: Count = 100,
        batch_size: Count = 4,
        val: BelowOne = 0.05,
        limit: Count | None = None,
        image_size: Count = 128,
        crop: bool = False,
        smallest_crop: Fraction = 0.5,
        flip: bool = True,
        workers: Index = 2,
    ) -> None:
        info = _sample_data.photographs(image_size, whole=True)
        parts = zip(train_and_test(root or photographs), (samples, test_samples), (1, 2), strict=True)
        made = [
            Generated(Crops(photos, image_size), count, key, content_of(photos, image_size))
            for photos, count, key in parts
        ]
        super().__init__(
            seed,
            dict(zip(("train", "test"), made, strict=True)),
            info=info,
            augmentation=crop_and_flip(info, smallest_crop if crop else None, flip),
            val=val,
            limit=limit,
            batch_size=batch_size,
            workers=workers,
        )
