"""Networks to remove channels from, and what is left of them."""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.batch import Batch
from distill.compress.pruning.prune_channels import prune_channels
from students import student
from tests.compress import nets

SMALL = {"small_images": True}

NORMALISED: dict[str, dict[str, Any]] = {
    "resnet20": {},
    "resnet8x4": {"shortcut": "A"},
    "resnet18": SMALL,
    "wrn_16_2": {},
    "vgg8": {},
    "mobilenet_v2": {"width": 0.5, **SMALL},
    "shufflenet_v1": {"width": 0.5, **SMALL},
    "shufflenet_v2": {"width": 0.5, **SMALL},
    "kd_shufflenet_v2": {},
}
"""Networks all of whose channels go through batch normalisation."""


class Odd(nn.Module):
    """Squeeze and excitation, dense connections, halves that part and meet, filters with several outputs per input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1, padding_mode="reflect")
        self.squeeze, self.excite = nn.Conv2d(12, 8, 1), nn.Conv2d(8, 12, 1)
        self.dense = nn.Conv2d(12, 8, 3, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(20)
        self.twice = nn.Conv2d(20, 40, 3, stride=2, groups=20, padding=1)
        self.again = nn.Conv2d(40, 40, 1)
        self.twice.alike = self.again.alike = 2
        self.up = nn.ConvTranspose2d(40, 16, 3, stride=2, padding=1, output_padding=1)
        self.left, self.right = nn.Linear(8, 16), nn.Linear(8, 16, bias=False)
        self.rows = nn.Conv1d(16, 24, 3)
        self.head = nn.Linear(24 * 6, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.stem(inputs).relu_()
        x = x * self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()
        x = F.relu(self.norm(torch.cat([x, self.dense(x)], dim=1)))
        x = self.again(self.again(F.pad(self.twice(x), (0, 1, 1, 0))).relu())
        x = F.adaptive_avg_pool2d(F.interpolate(self.up(x), scale_factor=2), (8, 1)).squeeze(3)
        left, right = x.chunk(2, dim=1)
        x = self.left(left.transpose(1, 2)).transpose(1, 2) + self.right(right.transpose(1, 2)).transpose(1, 2)
        return self.head(F.max_pool1d(self.rows(x), 1).flatten(1))


def network(name: str, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    if name == "odd":
        return Odd()
    if name == "densenet":
        return torchvision.models.DenseNet(8, (2, 2), 16, num_classes=10)
    return student.find(name)(**{"num_classes": 10} | NORMALISED.get(name, {}) | settings)


@torch.no_grad()
def settled(model: nn.Module, size: int = 16) -> nn.Module:
    """With batch statistics of its own."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        model.train()(batches(size)[0].inputs)
    return model.eval()


def trained(name: str, **settings: Any) -> Artifact:
    """Not really, but every channel of a batch normalisation has a scale of its own."""
    model = network(name, **settings)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0.2, 0.3)
    return Artifact(settled(model), network={"name": name, "num_classes": 10, **NORMALISED.get(name, {}), **settings})


def batches(size: int = 16, channels: int = 3, count: int = 8) -> list[Batch]:
    images = torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1))
    return [Batch(images, torch.arange(count) % 10, torch.arange(count))]


def prune(artifact: Artifact, calibration: list[Batch] | None = None, **settings: Any) -> Artifact:
    return prune_channels(artifact, calibration or batches(), nets.task_loss, **settings)


def widths(model: nn.Module) -> dict[str, int]:
    """Output channels, layer by layer."""
    return {
        path: layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    }


def assert_same(found: Tensor, expected: Tensor) -> None:
    spread = float((expected - expected.mean(0)).abs().max().detach())  # what does not depend on the image tells little
    assert spread > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * max(1, spread))


def plain(*widths: int, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs) if norm else nn.Identity(),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


FINE = {"round_to": 1, "min_channels": 1}
