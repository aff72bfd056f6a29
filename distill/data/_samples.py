"""Samples that are read one at a time, from files or a generator, and transformed together with their labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from distill.batch import Batch
from distill.data._loading import BatchIndices, mix
from distill.data.info import DataInfo
from distill.data.preprocessing import Preprocessing, normalised


class Sample(NamedTuple):
    """One sample before it is transformed."""

    pictures: tuple[Image.Image, ...]
    """One picture, or two of equal size for optical flow."""
    label: Any = None
    """None, a class, a tv_tensors.Mask, a `Flow`, or a dict of tensors with tv_tensors among them."""


@runtime_checkable
class Reader(Protocol):
    """All samples of a split, by position."""

    @property
    def classes(self) -> Int64[Tensor, " samples"] | None:
        """Class of each sample; None where a sample has no single class."""

    def __len__(self) -> int: ...

    def read(self, position: int) -> Sample:
        """Raises: DataError: a file is damaged; the message names it."""

    def identity(self, position: int) -> bytes:
        """Changes when the content of a sample does: names and sizes of its files, its label."""


@dataclass(frozen=True)
class Samples:
    """Some of a reader's samples; a batch of them is read, transformed and normalised.

    How a sample looks depends on (seed, epoch, sample) alone, also when ``transform`` draws at random.
    """

    reader: Reader
    chosen: Int64[Tensor, " samples"]
    transform: Callable[[Sample], Sample]
    info: DataInfo
    seed: int

    @property
    def classes(self) -> Int64[Tensor, " samples"] | None:
        classes = self.reader.classes
        return None if classes is None else classes[self.chosen]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, indices: BatchIndices) -> Batch:
        samples = [self._sample(indices.epoch, sample) for sample in indices.samples.tolist()]
        pixels = torch.stack([torch.cat([_pixels(picture) for picture in sample.pictures]) for sample in samples])
        mean, std = self.info.mean * self.info.images, self.info.std * self.info.images
        labels = collated([sample.label for sample in samples])
        return Batch(normalised(pixels.numpy(), mean, std), labels, indices.samples)

    def fingerprint(self) -> bytes:
        content = blake2b()
        for position in self.chosen.tolist():
            content.update(self.reader.identity(position) + b"\n")
        return content.digest()

    def _sample(self, epoch: int, sample: int) -> Sample:
        read = self.reader.read(int(self.chosen[sample]))
        # torchvision draws from the global generator alone: lend it one that depends only on seed, epoch and sample, so
        # that neither the number of workers nor the order of reading matters. (torch.manual_seed also reseeds GPUs.)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(mix(self.seed, epoch, sample))
            return self.transform(read)


def collated(labels: Sequence[Any]) -> Any:
    """Labels of a batch: None, one tensor, a dict of tensors, or a list where each image has boxes of its own."""
    first = labels[0]
    if first is None:
        return None
    if isinstance(first, int):
        return torch.tensor(labels)
    if isinstance(first, Tensor):
        return torch.stack([label.as_subclass(Tensor) for label in labels])
    if any(isinstance(value, tv_tensors.BoundingBoxes) for value in first.values()):
        return [_plain(label) for label in labels]
    return {key: collated([label[key] for label in labels]) for key in first}


def evaluation(preprocessing: Preprocessing) -> v2.Transform:
    """What a sample goes through when it is not augmented: exactly what prediction does to its picture."""
    return v2.Compose([_Convert(preprocessing.mode), preprocessing.geometry()])


def augmentation(preprocessing: Preprocessing, *steps: v2.Transform) -> v2.Transform:
    """What a training sample goes through: ``steps`` see pictures and labels together."""
    return v2.Compose([_Convert(preprocessing.mode), *steps])


class _Convert(v2.Transform):
    _transformed_types = (Image.Image,)

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def transform(self, inpt: Image.Image, params: dict[str, Any]) -> Image.Image:
        return inpt.convert(self.mode)


def _pixels(picture: Image.Image) -> UInt8[Tensor, "channels height width"]:
    pixels: Tensor = v2.functional.pil_to_tensor(picture)
    return pixels


def _plain(label: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.as_subclass(Tensor) for key, value in label.items()}
