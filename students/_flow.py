"""Parts of networks for optical flow: both images through one encoder, their correlation, flow at several resolutions.

Two images (batch, 2 * channels, height, width) in, one flow (batch, 2, height / 4, width / 4) out, in pixels of the
images: to the right, then down. Coarser flow comes from submodules, which `auxiliary` names.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

COARSE = ("flow5", "flow4", "flow3")
"""Heads of small networks, at 1/32, 1/16 and 1/8 of the images' size."""
LEVEL_WEIGHTS = (1.0, 0.5, 0.5)
"""Of their losses, that of the finest flow being 1."""

Map = Float[Tensor, "batch channels height width"]
Vectors = Float[Tensor, "batch 2 height width"]


class Siamese(nn.Module):
    """The same layers for both images; their features are stacked along the channels, as the images are."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, images: Map) -> Map:
        features: Tensor = self.layers(images.unflatten(1, (2, -1)).flatten(0, 1))
        return features.unflatten(0, (-1, 2)).flatten(1, 2)


class Correlation(nn.Module):
    """Cosine of each vector of the first image's features with those around its place in the second's.

    Dosovitskiy et al., FlowNet, arXiv:1504.06852, equation 1 with K = 0, of features of unit length.

    Rows are cut into blocks of 2 displacement / stride columns. A block of one row times two blocks of another is a
    matrix product that holds all displacements of its columns along these rows: twice as fast in training as products
    one displacement at a time, and counted as MACs. Of 2 * (side - 1) columns of products, a band of ``side`` is kept.

    Args:
        displacement: the largest one, in cells of the map, along each axis.
        stride: between displacements; ``displacement`` is a multiple of it.
    """

    def __init__(self, displacement: int, stride: int = 1) -> None:
        super().__init__()
        self.displacement, self.stride = displacement, stride
        self.block = 2 * displacement // stride
        self.side = self.block + 1

    @property
    def channels(self) -> int:
        """Of the output: displacements, row by row."""
        return self.side**2

    def forward(self, pair: Map) -> Map:
        """(batch, 2 * channels, height, width) to (batch, displacements, height, width)."""
        first, second = (F.normalize(features, dim=1) for features in pair.chunk(2, dim=1))
        (height, width), reach = first.shape[2:], self.displacement
        more = -width % (2 * reach)
        blocks = self._blocks(F.pad(second, (reach, more + reach, reach, reach)))
        pairs = torch.cat([blocks[:, :, :, :-1], blocks[:, :, :, 1:]], dim=-1)
        first = self._blocks(F.pad(first, (0, more))).transpose(4, 5)
        rows = torch.stack([pairs[:, dy : dy + height] for dy in range(0, 2 * reach + 1, self.stride)], dim=2)
        return self._bands(first.unsqueeze(2) @ rows)[:, :, :width].flatten(3).permute(0, 3, 1, 2)

    def _blocks(self, features: Map) -> Float[Tensor, "batch height stride blocks channels block"]:
        """Columns that differ by multiples of the stride stand together: no others are ever compared."""
        return features.unflatten(3, (-1, self.block, self.stride)).permute(0, 2, 5, 3, 1, 4)

    def _bands(
        self, products: Float[Tensor, "batch height side stride blocks block columns"]
    ) -> Float[Tensor, "batch height width side side"]:
        """Of the products of column i of a block, those with columns i, i + 1, ... of the padded pair of blocks.

        One number more in every row moves row i by i to the left.
        """
        moved = F.pad(products.flatten(5), (0, self.block)).unflatten(5, (self.block, 2 * self.block + 1))
        return moved[..., : self.side].permute(0, 1, 4, 5, 3, 2, 6).flatten(2, 4)


class FlowHead(nn.Module):
    """Flow in pixels of the images, by one convolution.

    Args:
        inputs: channels.
        scale: pixels of flow for an output of 1. Without batch normalisation it is what lets flow of many pixels be
            learned at all; with it, 1 learned faster than 5.
    """

    def __init__(self, inputs: int, scale: float = 1.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 2, kernel_size=3, padding=1)
        self.scale = scale

    def forward(self, features: Map, coarse: Vectors | None = None) -> Vectors:
        """Flow, or what is to be added to a coarse one."""
        flow: Tensor = self.conv(features)
        flow = flow if self.scale == 1 else flow * self.scale
        return flow if coarse is None else coarse + flow


def separable(inputs: int, outputs: int, stride: int, *, last: Callable[..., nn.Module] | None = nn.ReLU) -> nn.Module:
    """A depthwise and a 1x1 convolution, each with batch normalisation and ReLU, the last one perhaps without."""
    return nn.Sequential(
        Conv2dNormActivation(inputs, inputs, 3, stride, groups=inputs, inplace=False),
        Conv2dNormActivation(inputs, outputs, 1, activation_layer=last, inplace=None if last is None else False),
    )


def level_weights(names: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    """Weights of coarser flow by module path, for ``auxiliary``.

    Raises:
        ValueError: not one for each, or one that is no number from 0.
    """
    if len(weights) != len(names) or not all(0 <= weight < float("inf") for weight in weights):
        raise ValueError(f"level_weights is {list(weights)}, but gives a number from 0 for each of {', '.join(names)}")
    return dict(zip(names, weights, strict=True))


def upsampled(features: Map, like: Map) -> Map:
    """As large as another map, bilinearly."""
    return F.interpolate(features, size=like.shape[2:], mode="bilinear", align_corners=False)
