"""Parts that several families share: named stages, stems, heads, initialisation, checks."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
Initialise = Callable[[Tensor], Any]

he_normal: Initialise = partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu")
"""He et al.: Delving Deep into Rectifiers. arXiv:1502.01852, section 2.2: gradients keep their size."""


class Network(nn.Sequential):
    """Named layers, run in the order written; ``stages`` names those that end a stage, early to late.

    Images (batch, channels, height, width) in, logits (batch, num_classes) out.
    """

    stages: tuple[str, ...]

    def __init__(self, layers: Mapping[str, nn.Module], stages: tuple[str, ...] = ()) -> None:
        super().__init__(OrderedDict(layers))
        self.stages = stages


def head(features: int, num_classes: int) -> dict[str, nn.Module]:
    """The last layers of a network: (batch, features, height, width) in, (batch, num_classes) out."""
    return {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(features, num_classes)}


def residual_stages(
    block: Callable[[int, int, int], nn.Module], *, blocks: int, widths: Sequence[int]
) -> dict[str, nn.Module]:
    """``layer1``, ``layer2``, ... of ``blocks`` blocks each; all but the first halve the resolution.

    Args:
        block: makes one from its input channels, output channels and stride.
        blocks: how many to a stage.
        widths: channels before the first stage and after each.
    """
    return {
        f"layer{i}": nn.Sequential(
            block(inputs, outputs, 1 if i == 1 else 2), *(block(outputs, outputs, 1) for _ in range(blocks - 1))
        )
        for i, (inputs, outputs) in enumerate(pairwise(widths), start=1)
    }


def stem(original: nn.Conv2d, *, channels: int, small_images: bool, initialise: Initialise = he_normal) -> nn.Conv2d:
    """A first convolution for ``channels`` input channels, 3x3 with stride 1 where images are small.

    It is ``original`` itself if nothing changes: same weights, and the same random numbers drawn.
    """
    if not small_images and channels == original.in_channels:
        return original
    geometry: dict[str, Any] = {"kernel_size": 3, "stride": 1, "padding": 1}
    if not small_images:
        geometry = {name: getattr(original, name) for name in geometry}
    conv = nn.Conv2d(channels, original.out_channels, **geometry, bias=original.bias is not None)
    return initialised(conv, initialise)


def initialised(network: M, initialise: Initialise = he_normal, *, classifier_std: float | None = None) -> M:
    """The same network with fresh convolutions and, if asked, a classifier drawn from a normal distribution."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            initialise(module.weight)
        elif isinstance(module, nn.Linear) and classifier_std is not None:
            nn.init.normal_(module.weight, std=classifier_std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return network


def require(setting: str, value: object, valid: Collection[object]) -> None:
    """Refuses a value that a network is not defined for.

    Raises:
        ValueError: names the valid ones.
    """
    if value not in valid:
        raise ValueError(f"{setting} is {value}, but must be one of {', '.join(map(str, valid))}")
