"""Networks small enough for a test to train."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distill.data import DataInfo

TEN_CLASSES = DataInfo(1, (8, 8), (0.3,), (0.35,), tuple("0123456789"))
"""What a data set of ten classes says about itself."""


class ConvNet(nn.Module):
    """Three stages and a classifier; ``width`` makes it a teacher or a student."""

    stages = ("stage1", "stage2", "stage3")

    def __init__(self, *, num_classes: int = 10, width: int = 4, channels: int = 1) -> None:
        super().__init__()
        self.stage1 = block(channels, width)
        self.stage2 = block(width, 2 * width)
        self.stage3 = block(2 * width, 4 * width)
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.stage3(self.stage2(self.stage1(inputs))).mean(dim=(2, 3)))


def block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )


class Pair(NamedTuple):
    logits: Tensor
    aux: Tensor


@dataclass
class Record:
    logits: Tensor
    aux: Tensor


class Forked(nn.Module):
    """A dict, a tuple, ... of two heads on one map."""

    def __init__(self, *, kind: str = "dict", num_classes: int = 3) -> None:
        super().__init__()
        self.kind = kind
        self.body = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(4, num_classes)
        self.extra = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, num_classes))

    def forward(self, images: Tensor) -> Any:
        features = self.body(images).relu().mean((2, 3))
        first, second = self.head(features), self.extra(features)
        match self.kind:
            case "dict":
                return OrderedDict(out=first, aux=second)
            case "names":
                return {"classes": first, "aux": second}
            case "list":
                return [second, first]
            case "tuple":
                return second, first
            case "dataclass":
                return Record(first, second)
            case _:
                return Pair(first, second)


class Inception(nn.Module):
    """GoogLeNet in small: a stem, two modules of four branches, a pool behind each of them."""

    def __init__(self, *, num_classes: int = 4, channels: int = 1) -> None:
        super().__init__()
        self.stem = conv(channels, 8, 3)
        self.pool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.first = Branches(8, (2, 4, 6, 2, 4, 4))
        self.pool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.second = Branches(16, (6, 4, 10, 4, 6, 2))
        self.pool3 = nn.AvgPool2d(2)
        self.head = nn.Linear(24, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.pool2(self.first(self.pool1(self.stem(inputs))))
        return self.head(self.pool3(self.second(x)).mean(dim=(2, 3)))


class Branches(nn.Module):
    """Widths are those of the 1x1 convolution; of the 3x3 branch, reduced and then its own; of 5x5; of the pool's."""

    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        point, less3, three, less5, five, pooled = widths
        self.one = conv(inputs, point, 1)
        self.two = nn.Sequential(conv(inputs, less3, 1), conv(less3, three, 3))
        self.three = nn.Sequential(conv(inputs, less5, 1), conv(less5, five, 5))
        self.four = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv(inputs, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.two(x), self.three(x), self.four(x)], dim=1)


def conv(inputs: int, outputs: int, size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


@torch.no_grad()
def settled(network: nn.Module, images: Tensor) -> nn.Module:
    """The same network to evaluate, its batch norms with the statistics of these images."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()(images)
    return network.eval()
