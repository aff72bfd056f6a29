"""A small set of images as one uint8 tensor, augmented as whole batches."""

from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import NamedTuple

from jaxtyping import Int64, UInt8
from torch import Tensor

from distill.batch import Batch
from distill.data._augment import CropFlip, normalised
from distill.data._images import ImageData
from distill.data._loading import BatchIndices
from distill.data._split import split
from distill.errors import RecipeError


class Labelled(NamedTuple):
    """Images and their labels, as read from files."""

    images: UInt8[Tensor, "samples channels height width"]
    labels: Int64[Tensor, " samples"]


@dataclass(frozen=True)
class Store:
    """Labelled images in memory; a batch of them is an index, a crop and a normalisation."""

    images: UInt8[Tensor, "samples channels height width"]
    labels: Int64[Tensor, " samples"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: CropFlip | None = None

    def __getitem__(self, picks: BatchIndices) -> Batch:
        images = self.images.numpy()[picks.samples.numpy()]
        if self.augment:
            images = self.augment(images, picks)
        return Batch(normalised(images, self.mean, self.std), self.labels[picks.samples], picks.samples)

    def fingerprint(self) -> bytes:
        content = blake2b(repr(tuple(self.images.shape)).encode())
        content.update(self.images.numpy().data)
        content.update(self.labels.numpy().data)
        return content.digest()


class InMemory(ImageData):
    """Splits a training set, and makes stores of its parts."""

    def __init__(
        self,
        seed: int,
        train: Labelled,
        test: Labelled,
        *,
        class_names: tuple[str, ...],
        batch_size: int,
        val: float,
        limit: int | None,
        crop: int,
        flip: bool,
    ) -> None:
        if crop < 0:
            raise RecipeError(f"data.crop={crop}: pixels of padding, 0 for no random crop")
        for_training, for_validation = split(train.labels, limit, val)
        plain = self._store(train, for_training)
        super().__init__(
            seed,
            replace(plain, augment=CropFlip(seed, len(plain.labels), crop, flip)),
            plain,
            self._store(train, for_validation),
            Store(test.images, test.labels, self.mean, self.std),
            class_names=class_names,
            image_size=(train.images.shape[2], train.images.shape[3]),
            batch_size=batch_size,
        )

    def _store(self, everything: Labelled, chosen: Int64[Tensor, " chosen"]) -> Store:
        return Store(everything.images[chosen], everything.labels[chosen], self.mean, self.std)
