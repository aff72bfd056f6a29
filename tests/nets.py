"""Networks small enough for a test to train."""

import torch
from torch import Tensor, nn


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


@torch.no_grad()
def settled(network: nn.Module, images: Tensor) -> nn.Module:
    """The same network to evaluate, its batch norms with the statistics of these images."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()(images)
    return network.eval()
