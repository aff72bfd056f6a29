"""Samples that are read one at a time, from files or a generator, and transformed together with their labels."""

from collections.abc import Callable, Sequence
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
from distill.data._flow import Flow
from distill.data._loading import BatchIndices, mix
from distill.data.info import DataInfo
from distill.data.preprocessing import Mode, normalised


class Sample(NamedTuple):
    """One sample before it is transformed."""

    pictures: tuple[Image.Image, ...]
    """One picture, or two of equal size for optical flow."""
    label: Any = None
    """None, a class, a tv_tensors.Mask, a `Flow`, or a dict with tv_tensors.BoundingBoxes among its tensors."""


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
        """Changes when the content of a sample does: what is in its files, its label."""


@dataclass(frozen=True)
class Samples:
    """Some of a reader's samples; a batch of them is read, transformed and normalised.

    How a sample looks depends on (seed, epoch, sample) alone, also where ``transform`` draws at random.
    """

    reader: Reader
    chosen: Int64[Tensor, " samples"]
    """Positions in the reader."""
    transform: Callable[[Sample], Sample]
    """Sees pictures and labels together."""
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
    """The labels of a batch.

    Classes become an int64 tensor (batch,); masks one of (batch, height, width); flow a dict of "flow"
    (batch, 2, height, width), 0 where it is unknown, and "valid" (batch, height, width); boxes a list with one dict of
    tensors for each image; nothing stays None.
    """
    first = labels[0]
    if first is None:
        return None
    if isinstance(first, int):
        return torch.tensor(labels)
    if isinstance(first, Flow):
        flow = torch.stack([label.as_subclass(Tensor) for label in labels])
        return {"flow": flow.nan_to_num(0.0), "valid": flow.isfinite().all(1)}
    if isinstance(first, tv_tensors.Mask):
        return torch.stack([label.as_subclass(Tensor) for label in labels]).long()
    return [{key: value.as_subclass(Tensor) for key, value in label.items()} for label in labels]


class Convert(v2.Transform):
    """Pictures in colours or in grey."""

    _transformed_types = (Image.Image,)

    def __init__(self, mode: Mode) -> None:
        super().__init__()
        self.mode = mode

    def transform(self, inpt: Image.Image, params: dict[str, Any]) -> Image.Image:
        return inpt.convert(self.mode)


def _pixels(picture: Image.Image) -> UInt8[Tensor, "channels height width"]:
    pixels: Tensor = v2.functional.pil_to_tensor(picture)
    return pixels
