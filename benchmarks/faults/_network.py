"""A network that is read in milliseconds and has every kind of layer that storage formats are for."""

from torch import Tensor, nn


class Small(nn.Module):
    """Plain, depthwise and pointwise convolutions, batch normalisation, and two linear layers.

    Args:
        width: channels of the first layer.
        depth: blocks of a depthwise and a pointwise convolution.
    """

    def __init__(self, *, width: int = 8, depth: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential()
        for _ in range(depth):
            self.blocks.append(nn.Conv2d(width, width, 3, padding=1, groups=width))
            self.blocks.append(nn.Conv2d(width, width, 1))
        self.wide = nn.Conv2d(width, 2 * width, 3, stride=2)
        self.hidden = nn.Linear(2 * width, 2 * width)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.blocks(self.norm(self.stem(inputs)).relu())
        return self.head(self.hidden(self.wide(features).relu().mean((2, 3))).relu())
