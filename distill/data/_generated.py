"""Samples that are made, not read: each from the seed of its data set and its position alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image

from distill.data._loading import mix
from distill.data._photographs import Collection, collected
from distill.data._samples import Sample

ENOUGH = 8
"""Photographs from which on whole ones are held out for the test set; of fewer, the right third of each is."""


@dataclass(frozen=True)
class Generated:
    """Samples of a function of random numbers."""

    make: Callable[[np.random.Generator], Sample]
    samples: int
    key: int
    """Seeds differ by it: of the training set and of the test set."""
    source: bytes
    """Names what samples are made of: settings and photographs."""
    classes: None = None

    def __len__(self) -> int:
        return self.samples

    def read(self, position: int) -> Sample:
        return self.make(np.random.default_rng(mix(self.key, position)))

    def identity(self, position: int) -> bytes:
        return self.source + f"{self.key} {position}".encode()


def train_and_test(source: Path | Collection) -> tuple[list[Image.Image], list[Image.Image]]:
    """Colour photographs to train and to test with, that share no pixel.

    Args:
        source: as of `collected`.

    Raises:
        DataError: there are none, or one is damaged.
    """
    found = collected(source)
    if len(found) >= ENOUGH:
        return [photo for i, photo in enumerate(found) if i % ENOUGH], found[::ENOUGH]
    edges = [photo.width * 2 // 3 for photo in found]
    train = [photo.crop((0, 0, edge, photo.height)) for photo, edge in zip(found, edges, strict=True)]
    test = [photo.crop((edge, 0, *photo.size)) for photo, edge in zip(found, edges, strict=True)]
    return train, test


def content_of(photos: Sequence[Image.Image], *settings: object) -> bytes:
    """A fingerprint of photographs and settings."""
    content = blake2b(repr(settings).encode(), digest_size=16)
    for photo in photos:
        content.update(photo.tobytes())
    return content.digest()


def random_crop(photos: Sequence[Image.Image], size: int, random: np.random.Generator) -> Image.Image:
    """A square of a random photograph, at random place and scale: from 0.4 of its shorter side to all of it."""
    photo = photos[int(random.integers(len(photos)))]
    side = max(1, round(min(photo.size) * random.uniform(0.4, 1.0)))
    left, top = random.integers(photo.width - side + 1), random.integers(photo.height - side + 1)
    box = (int(left), int(top), int(left) + side, int(top) + side)
    return photo.resize((size, size), Image.Resampling.BILINEAR, box)
