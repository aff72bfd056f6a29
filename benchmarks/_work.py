"""What the speed of distillation is measured on: pairs of networks, losses, and random images of CIFAR's size."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
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
    """Or ``reviewkd``."""
    loads: bool = False
    """Whether batches are loaded and augmented, or one lies ready."""
    batch: int = 64
    steps: int = 4
    """So many are timed, after one that is not."""
    channels_last: bool = True
    compiled: bool = False
    precision: str = "32-true"

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """Student and teacher, the same each time."""
        torch.manual_seed(0)
        ours = student.find(self.student)(num_classes=CLASSES, **dict(self.settings))
        return ours, student.find(self.teacher)(num_classes=CLASSES).eval().requires_grad_(False)

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def paths(self) -> tuple[list[str], list[str]]:
        """The student's taps and the teacher's."""
        return [ours for ours, _ in self.taps], [theirs for _, theirs in self.taps]

    @property
    def samples(self) -> int:
        return self.batch * (self.steps + 1)

    def batches(self, loader: Iterable[Any]) -> Iterable[Any]:
        """One for each step: the loader's, or its first one again and again."""
        return loader if self.loads else [next(iter(loader))] * (self.steps + 1)


@torch.no_grad()
def shapes(network: nn.Module, paths: list[str]) -> list[tuple[int, ...]]:
    """Of the network's taps."""
    mode = network.training
    _, features = Taps(network.eval(), paths)(torch.zeros(2, 3, 32, 32))
    network.train(mode)
    return [tuple(feature.shape) for feature in features.values()]


@cache
def noise(samples: int) -> Labelled:
    """Random images."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (samples, 3, 32, 32), generator=random, dtype=torch.uint8)
    return Labelled(images, torch.arange(samples) % CLASSES)


class InOurMemory(InMemory):
    """The images as our data sets have them: augmented a batch at a time."""

    mean, std = MEAN, STD

    def __init__(self, work: Workload) -> None:
        images = noise(work.samples)
        names = tuple(map(str, range(CLASSES)))
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
        self.images, self.labels = noise(work.samples)
        augmented = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()] if work.loads else []
        self.transform = v2.Compose([*augmented, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.images[index]), self.labels[index]
