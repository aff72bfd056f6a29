"""Cut-outs of photographs that fly in front of photographs, with exact flow: FlyingChairs without chairs.

After Dosovitskiy et al., FlowNet, arXiv:1504.06852, section 4.2: affine motion of the background, and of each
foreground object on top of it.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torchvision.transforms import v2

from distill.data import data
from distill.data._flow import Flow
from distill.data._flow_files import flow_info
from distill.data._generated import Generated, content_of, random_crop, train_and_test
from distill.data._photographs import Collection
from distill.data._sample_data import SampleData
from distill.data._samples import Sample
from distill.errors import RecipeError
from distill.registry.ranges import BelowOne, Count, Index, Positive

Affine = Float[np.ndarray, "3 3"]
MARGIN = 0.25
"""Of a texture around the picture, as a share of its side: what moves in is painted, too."""


@dataclass(frozen=True)
class Cutouts:
    """Makes pairs of pictures with up to ``objects`` moving cut-outs."""

    photos: list[Image.Image]
    size: int
    objects: int
    motion: float

    def __call__(self, random: np.random.Generator) -> Sample:
        centre = np.full(2, self.size / 2)
        background = self._motion(random, centre, 0.5)
        pictures, flow = self._seen(random, background), _vectors(background, self.size)
        for _ in range(random.integers(self.objects + 1)):
            place = random.uniform(0.15, 0.85, 2) * self.size
            motion = background @ self._motion(random, place, 1.0)
            shapes = _moved(_blob(random, place, self.size), motion, self.size)
            textures = self._seen(random, motion)
            for picture, texture, shape in zip(pictures, textures, shapes, strict=True):
                picture.paste(texture, (0, 0), shape)
            flow = np.where(np.asarray(shapes[0]) > 127, _vectors(motion, self.size), flow)
        return Sample(pictures, torch.from_numpy(flow.astype(np.float32)).as_subclass(Flow))

    def _motion(self, random: np.random.Generator, centre: Float[np.ndarray, "2"], strength: float) -> Affine:
        """A small turn and scaling about ``centre``, and a shift."""
        angle, scale = np.deg2rad(random.normal(0, 4 * strength)), np.exp(random.normal(0, 0.04 * strength))
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shift = random.normal(0, self.motion * self.size * strength, 2)
        affine = np.eye(3)
        affine[:2, :2], affine[:2, 2] = turn, centre - turn @ centre + shift
        return affine

    def _seen(self, random: np.random.Generator, motion: Affine) -> tuple[Image.Image, Image.Image]:
        """A photograph, before and after its motion."""
        margin = round(self.size * MARGIN)
        return _moved(random_crop(self.photos, self.size + 2 * margin, random), motion, self.size, margin)


@data("flying_cutouts")
class FlyingCutouts(SampleData):
    """``samples`` random pairs to train on and ``test_samples`` to test with, the same for every seed.

    Labels of a batch are as those of `flying_chairs`.

    ``motion`` is the standard deviation of shifts, as a share of the picture's side. ``root`` is a folder of
    photographs of your own; without it they are the two of scikit-learn, with
    ``photographs: debian`` also 68 of Debian's packages. Those of the test set are not those of the training set.
    """

    def __init__(
        self,
        seed: int,
        *,
        root: Path | None = None,
        photographs: Collection = "scikit-learn",
        samples: Count = 1600,
        test_samples: Count = 200,
        objects: Index = 3,
        motion: Positive = 0.05,
        batch_size: Count = 8,
        val: BelowOne = 0.1,
        limit: Count | None = None,
        image_size: Count = 96,
        crop: bool = False,
        flip: bool = True,
        workers: Index = 2,
    ) -> None:
        if image_size < 16:
            raise RecipeError(f"data.image_size={image_size}: cut-outs need pictures of at least 16 pixels")
        make = partial(_pairs, size=image_size, objects=objects, motion=motion)
        train_photos, test_photos = train_and_test(root or photographs)
        info = flow_info(image_size, image_size)
        super().__init__(
            seed,
            {"train": make(train_photos, samples, 1), "test": make(test_photos, test_samples, 2)},
            info=info,
            augmentation=[
                *([v2.RandomCrop([image_size, image_size], padding=image_size // 8)] if crop else []),
                *([v2.RandomHorizontalFlip()] if flip else []),
            ],
            val=val,
            limit=limit,
            batch_size=batch_size,
            workers=workers,
        )


def _pairs(photos: list[Image.Image], samples: int, key: int, *, size: int, objects: int, motion: float) -> Generated:
    source = content_of(photos, size, objects, motion)
    return Generated(Cutouts(photos, size, objects, motion), samples, key, source)


def _vectors(motion: Affine, size: int) -> Float[np.ndarray, "2 height width"]:
    """Where each pixel moves to, less where it is."""
    y, x = np.mgrid[0:size, 0:size] + 0.5
    return np.stack([motion[i, 0] * x + motion[i, 1] * y + motion[i, 2] - axis for i, axis in enumerate((x, y))])


def _moved(picture: Image.Image, motion: Affine, size: int, margin: int = 0) -> tuple[Image.Image, Image.Image]:
    """The centre of a picture, and what is there after the motion."""
    before = picture.crop((margin, margin, margin + size, margin + size))
    back = np.linalg.inv(motion)
    back[:2, 2] += margin  # Pillow asks where in the picture each pixel comes from
    after = picture.transform(
        (size, size), Image.Transform.AFFINE, tuple(back[:2].flatten()), Image.Resampling.BILINEAR
    )
    return before, after


def _blob(random: np.random.Generator, place: Float[np.ndarray, "2"], size: int) -> Image.Image:
    """A smooth random shape about ``place``: how opaque each pixel is, from 0 to 255."""
    noise = Image.fromarray(random.normal(0, 1, (5, 5)).astype(np.float32))
    rough = np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC))
    y, x = np.mgrid[0:size, 0:size] + 0.5
    radius = size * random.uniform(0.12, 0.3)
    near = 1 - np.hypot(x - place[0], y - place[1]) / radius
    return Image.fromarray((np.clip((near + 0.3 * rough) * radius / 2 + 0.5, 0, 1) * 255).astype(np.uint8))
