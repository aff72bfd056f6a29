"""A small set of images of single classes as one uint8 tensor, augmented as whole batches."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import NamedTuple

from jaxtyping import Int64, UInt8
from torch import Tensor

from distill.batch import Batch
from distill.data._augment import CropFlip, Pixels
from distill.data._images import ImageData
from distill.data._loading import BatchIndices
from distill.data._split import shuffled, split
from distill.data.info import DataInfo
from distill.data.preprocessing import normalised
from distill.errors import RecipeError


class Labelled(NamedTuple):
    """Images and their labels, as read from files."""

    images: UInt8[Tensor, "samples channels height width"]
    labels: Int64[Tensor, " samples"]


@dataclass(frozen=True)
class Store:
    """Labelled images in memory; a batch of them is an index, an augmentation and a normalisation."""

    images: UInt8[Tensor, "samples channels height width"]
    classes: Int64[Tensor, " samples"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Callable[[Pixels, BatchIndices], Pixels] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: BatchIndices) -> Batch:
        images = self.images.numpy()[indices.samples.numpy()]
        if self.augment:
            images = self.augment(images, indices)
        return Batch(normalised(images, self.mean, self.std), self.classes[indices.samples], indices.samples)

    def fingerprint(self) -> bytes:
        content = blake2b(repr(tuple(self.images.shape)).encode())
        content.update(self.images.numpy().data)
        content.update(self.classes.numpy().data)
        return content.digest()


class InMemory(ImageData):
    """Splits a training set, and makes stores of its parts."""

    mean: tuple[float, ...]
    """Of each channel, for pixels from 0 to 1: what inputs are normalised with."""
    std: tuple[float, ...]
    plain: Store
    test: Store

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
        height, width = train.images.shape[2:]
        side = min(height, width)
        if not 0 <= crop <= side:
            raise RecipeError(
                f"data.crop={crop}: pixels of padding, from 0 (no random crop) to the image's side, {side}"
            )
        for_training, for_validation = split(shuffled(len(train.images), train.labels), limit, val)
        plain = self._store(train, for_training)
        super().__init__(
            seed,
            replace(plain, augment=CropFlip(seed, len(plain), crop, flip)),
            plain,
            self._store(train, for_validation),
            Store(test.images, test.labels, self.mean, self.std),
            info=DataInfo(
                channels=len(self.mean),
                image_size=(height, width),
                mean=self.mean,
                std=self.std,
                class_names=class_names,
                preprocessing={"resize": [height, width], "mode": "L" if len(self.mean) == 1 else "RGB"},
            ),
            batch_size=batch_size,
        )

    def _store(self, everything: Labelled, chosen: Int64[Tensor, " chosen"]) -> Store:
        return Store(everything.images[chosen], everything.labels[chosen], self.mean, self.std)
