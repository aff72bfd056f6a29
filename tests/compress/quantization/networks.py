"""Networks for int8: trained students, and one that joins, splits and shuffles channels."""

import torch
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.batch import Batch
from students import student

SETTINGS = {
    "resnet20": {},
    "wrn_16_2": {},
    "mobilenet_v2": {"width": 0.25, "small_images": True},
    "shufflenet_v2": {"width": 0.5, "small_images": True},
    "squeezenet1_1": {"small_images": True},
}


def never(model: nn.Module) -> float:
    raise AssertionError("nobody asked")


def trained(name: str) -> Artifact:
    """A network with batch statistics that say something."""
    torch.manual_seed(0)
    model = student.find(name)(num_classes=10, channels=1, **SETTINGS[name])
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 1, 16, 16) + 0.5)
    return Artifact(model.eval(), network={"name": name})


def images(size: int = 16) -> Tensor:
    return torch.randn(4, 1, size, size, generator=torch.Generator().manual_seed(2))


class Joined(nn.Module):
    """An addition, a split, joined channels, a shuffle, two poolings and two readers of one value."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.clip = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.block, self.head = Half(), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.clip(self.norm(self.stem(x))), 2)
        x = self.block(self.block_input(torch.relu(self.one(x) + self.two(x))))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))

    def block_input(self, x: Tensor) -> Tensor:
        return x


class Half(nn.Module):
    """One half of the channels passes, the other is convolved; then they are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, dim=1)
        x = torch.cat([kept, self.relu(self.conv(changed))], dim=1)
        return x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)


def joined() -> Artifact:
    torch.manual_seed(0)
    model = Joined()
    with torch.no_grad():
        model(torch.randn(8, 1, 8, 8))
    return Artifact(model.eval(), network={"name": f"{__name__}:Joined"})


def batches(size: int = 8) -> list[Batch]:
    return [Batch(images(size), torch.zeros(4), torch.arange(4))]
