"""A small network with every kind of layer that hooks meet."""

import torch
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.batch import Batch

ENTRY = {"name": "tests.compress.nets:Mixed"}
ALLOW = ["tests.compress.nets"]


class Mixed(nn.Module):
    """Strided, dilated, depthwise, pointwise and transposed convolutions; two linear layers that share one weight."""

    def __init__(self, *, width: int = 12) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.point = nn.Conv2d(width, 2 * width, 1, stride=2)
        self.kernel = nn.Conv2d(2 * width, width, (3, 5), padding=(2, 4), dilation=2, padding_mode="reflect")
        self.up = nn.ConvTranspose2d(width, width, 2)
        self.tied = nn.Linear(width, width)
        self.tied_too = nn.Linear(width, width)
        self.tied_too.weight = self.tied.weight
        self.head = nn.Linear(width, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.depthwise(self.norm(self.stem(inputs)).relu())
        features = self.up(self.kernel(self.point(features)).relu()).mean(dim=(2, 3))
        return self.head(self.tied_too(self.tied(features).relu()))


def artifact() -> Artifact:
    """One with batch statistics that say something."""
    torch.manual_seed(0)
    model = Mixed()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 1, 24, 24) + 0.5)
    return Artifact(model.eval(), network=ENTRY)


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 1, 24, 24, generator=torch.Generator().manual_seed(1))


def calibration(*shape: int, count: int = 16) -> list[Batch]:
    """Images with labels, in two batches."""
    shape = shape or (1, 24, 24)
    inputs = torch.randn(count, *shape, generator=torch.Generator().manual_seed(2))
    rows = torch.arange(count)
    return [Batch(inputs[half], rows[half] % 10, rows[half]) for half in rows.chunk(2)]


def striped(count: int = 256) -> Batch:
    """Four classes, by where the image is bright."""
    labels = torch.arange(count) % 4
    images = torch.randn(count, 1, 16, 16)
    for label in range(4):
        images[labels == label, :, 4 * label : 4 * label + 4] += 0.7
    return Batch(images, labels, torch.arange(count))


def anything(model: nn.Module) -> float:
    """A monitor that never falls."""
    return 1.0


def loss(model: nn.Module) -> Tensor:
    return nn.functional.cross_entropy(model(images(8)), torch.arange(8))


def train(model: nn.Module, steps: int = 3) -> nn.Module:
    """Move weights and batch statistics."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    return model.eval()


def task_loss(output: Tensor, batch: Batch) -> Tensor:
    """What hooks are given to differentiate: the cross-entropy of a batch."""
    return nn.functional.cross_entropy(output, batch.labels)
