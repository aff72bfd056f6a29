"""Networks of residual blocks, data and masks for levels of NestedNet."""

import copy

import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.losses.structure.nestednet import NestedNet
from distill.models.channels.nested import Masks


def batch(channels: int = 3, size: int = 16) -> Batch:
    return Batch(torch.randn(8, channels, size, size), torch.arange(8) % 10, torch.arange(8))


def weights(masks: Masks) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


class Deep(nn.Module):
    """Two stages of residual blocks, a classifier."""

    def __init__(self, *, blocks: int = 4, width: int = 4) -> None:
        super().__init__()
        stem = [nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        down = [nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU()]
        self.stages = nn.Sequential(
            *(*stem, *(Plus(width) for _ in range(blocks))),
            *(*down, *(Plus(2 * width) for _ in range(blocks))),
        )
        self.head = nn.Linear(2 * width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(x).mean(dim=(2, 3)))


class Plus(nn.Module):
    """What is added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.conv(x)).relu()


def with_masks(loss: NestedNet, model: nn.Module, level: float, inputs: Tensor) -> nn.Module:
    """A whole network with zeros in place of all weights outside a level."""
    model = copy.deepcopy(model)
    masks = loss.masks(inputs)[loss.levels.index(level)]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(masks.get(name, torch.tensor(True)))
    return model
