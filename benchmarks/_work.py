"""What the speed of distillation is measured on: pairs of networks, losses, and random images."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils.pin_memory import pin_memory
from torchvision.transforms import v2

from distill.data._in_memory import InMemory, Labelled
from distill.models.taps import Taps
from students import student

CLASSES = 100
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@dataclass(frozen=True)
class Workload:
    """What is trained and how."""

    teacher: str
    student: str
    taps: tuple[tuple[str, str], ...]
    """The student's and the teacher's, of the same height and width, early to late."""
    settings: tuple[tuple[str, Any], ...] = ()
    """The student's."""
    loss: str = "kd + at"
    """Or ``kd``, or ``reviewkd``."""
    loads: bool = False
    """Whether batches are loaded and augmented, or one lies ready."""
    batch: int = 64
    steps: int = 4
    """So many are timed."""
    warmup: int = 1
    """So many before them are not."""
    channels_last: bool = True
    compiled: bool = False
    precision: str = "32-true"
    """``32-true`` or ``bf16-mixed``."""
    device: str = "cpu"
    side: int = 32
    """Height and width of the images, in pixels."""
    classes: int = CLASSES

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """Student and teacher, the same each time."""
        torch.manual_seed(0)
        ours = student.find(self.student)(num_classes=self.classes, **dict(self.settings))
        return ours, student.find(self.teacher)(num_classes=self.classes).eval().requires_grad_(False)

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def paths(self) -> tuple[list[str], list[str]]:
        """The student's taps and the teacher's."""
        return [ours for ours, _ in self.taps], [theirs for _, theirs in self.taps]

    @property
    def samples(self) -> int:
        """Where a batch lies ready, it is all there is."""
        return self.batch * (self.steps + self.warmup if self.loads else 1)

    @property
    def computing(self) -> AbstractContextManager[Any]:
        """What forward passes and losses of a loop without Lightning run in."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16-mixed")

    def batches(self, loader: Iterable[Any]) -> Iterable[Any]:
        """One for each step: the loader's, or its first one again and again, in pinned memory where that helps."""
        return loader if self.loads else [self._pinned(next(iter(loader)))] * (self.steps + self.warmup)

    def _pinned(self, batch: Any) -> Any:
        return pin_memory(batch) if self.device == "cuda" else batch


@torch.no_grad()
def shapes(network: nn.Module, paths: list[str], side: int = 32) -> list[tuple[int, ...]]:
    """Of the network's taps, for images of that height and width."""
    mode = network.training
    _, features = Taps(network.eval(), paths)(torch.zeros(2, 3, side, side))
    network.train(mode)
    return [tuple(feature.shape) for feature in features.values()]


@cache
def noise(samples: int, side: int, classes: int) -> Labelled:
    """Random images."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (samples, 3, side, side), generator=random, dtype=torch.uint8)
    return Labelled(images, torch.arange(samples) % classes)


class InOurMemory(InMemory):
    """The images as our data sets have them: augmented a batch at a time."""

    mean, std = MEAN, STD

    def __init__(self, work: Workload) -> None:
        images = noise(work.samples, work.side, work.classes)
        names = tuple(map(str, range(work.classes)))
        augmented = {"crop": 4, "flip": True} if work.loads else {"crop": 0, "flip": False}
        sizes = {"batch_size": work.batch, "val": 0.0, "limit": None}
        super().__init__(0, images, images, class_names=names, rand_augment=None, **sizes, **augmented)
        self.work, self.views = work, 1

    def train_dataloader(self) -> Any:
        loader = super().train_dataloader()
        ready = self.work.batches(loader)
        return loader if self.work.loads else DataLoader(ready, batch_size=None, collate_fn=lambda batch: batch)


class OneByOne(Dataset[tuple[Tensor, Tensor]]):
    """The images one at a time through torchvision's transforms, as most training scripts read CIFAR."""

    def __init__(self, work: Workload) -> None:
        self.images, self.labels = noise(work.samples, work.side, work.classes)
        augmented = [v2.RandomCrop(work.side, padding=4), v2.RandomHorizontalFlip()] if work.loads else []
        self.transform = v2.Compose([*augmented, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.images[index]), self.labels[index]
