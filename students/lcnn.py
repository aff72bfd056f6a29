"""Bagherinezhad, Rastegari & Farhadi: LCNN: Lookup-based Convolutional Neural Network. arXiv:1611.06473 (CVPR 2017).

Each position of each filter is a combination of a few rows of a small dictionary that the whole layer shares: apply the
dictionary once to the image, then look up responses. As in the authors' code (hessamb/lcnn), coefficients begin dense
and are pushed to zero while the network trains; one that arrives there stays.

The paper's few-shot form keeps the dictionaries of a network and learns the lookups for other images: a recipe does so
with ``weights`` of the earlier run and ``train`` patterns that leave ``*.dictionary`` out, see digits/lcnn_few_shot.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.registry.ranges import Count, NonNegative
from students import student
from students._blocks import Network
from students._replace import replace_convolutions
from students.resnet_cifar import resnet20

INITIAL_SPARSITY = 0.01
"""Part of the coefficients that begin below the threshold."""

ALEXNET = (((192, 5),), ((384, 3), (256, 3), (256, 3)))
"""Output channels and kernel of the convolutions after the first, stage by stage."""


class LookupConv2d(nn.Module):
    """A dictionary, which is a 1x1 convolution, and a sparse convolution over its responses (section 3).

    A coefficient that is not above ``threshold`` in size counts as 0 and learns nothing. With every gradient the others
    are pushed by ``push`` x ``threshold`` towards 0.

    Args:
        inputs: channels.
        outputs: channels.
        size: of a filter, height and width.
        words: rows of the dictionary.
        stride: of the filters.
        padding: on each side of the image; the dictionary is applied to it as well.
        bias: added to the outputs.
        push: lambda of equation 9, at least 0.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        words: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = False,
        push: NonNegative = 0.1,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.push = stride, padding, push
        bound = 1 / math.sqrt(words * size**2)
        self.threshold = INITIAL_SPARSITY * bound
        self.dictionary = nn.Parameter(torch.empty(words, inputs, 1, 1))
        self.coefficients = nn.Parameter(torch.empty(outputs, words, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        nn.init.uniform_(self.dictionary, -(inputs**-0.5), inputs**-0.5)
        nn.init.uniform_(self.coefficients, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.responses(x), self.sparse(), self.bias, self.stride)

    def responses(self, x: Tensor) -> Tensor:
        """What each row of the dictionary says at each pixel: (batch, words, height, width), with padding."""
        return F.conv2d(x, self.dictionary, padding=self.padding)

    def sparse(self) -> Tensor:
        """The coefficients with their zeros: (outputs, words, size, size)."""
        kept = torch.where(self.coefficients.abs() > self.threshold, self.coefficients, 0.0)
        if self.training and kept.requires_grad:
            towards_zero = self.push * self.threshold * kept.detach().sign()
            kept.register_hook(lambda gradient: gradient + towards_zero)
        return kept

    def look_up(self, x: Tensor) -> Tensor:
        """The same outputs from the coefficients that are not 0 alone; not for training."""
        responses, sparse = self.responses(x), self.sparse()
        height, width = ((edge - sparse.shape[3]) // self.stride + 1 for edge in responses.shape[2:])
        patches = F.unfold(responses, sparse.shape[3], stride=self.stride)  # (batch, words * size * size, pixels)
        outputs = sparse.flatten(1).to_sparse() @ patches.movedim(1, 0).flatten(1)
        outputs = outputs.unflatten(1, (len(x), height, width)).movedim(0, 1)
        return outputs if self.bias is None else outputs + self.bias[:, None, None]

    def macs(self, height: int, width: int) -> int:
        """Multiplications that looking up needs for one image of that size: the dictionary's and the coefficients'."""
        height, width = height + 2 * self.padding, width + 2 * self.padding
        size = self.coefficients.shape[3]
        pixels = ((height - size) // self.stride + 1) * ((width - size) // self.stride + 1)
        return self.dictionary.numel() * height * width + int(self.sparse().count_nonzero()) * pixels

    def deploy(self) -> nn.Module:
        """Two plain convolutions, the second one full of zeros."""
        words, inputs = self.dictionary.shape[:2]
        outputs, _, size, _ = self.coefficients.shape
        dictionary = nn.Conv2d(inputs, words, 1, padding=self.padding, bias=False)
        sparse = nn.Conv2d(words, outputs, size, self.stride, bias=self.bias is not None)
        dictionary.weight.data, sparse.weight.data = self.dictionary.detach(), self.sparse().detach()
        if sparse.bias is not None and self.bias is not None:
            sparse.bias.data = self.bias.detach()
        return nn.Sequential(dictionary, sparse)


def lookup(
    inputs: int, outputs: int, size: int, words: int, *, stride: int = 1, padding: int = 0, push: NonNegative = 0.1
) -> nn.Module:
    """A `LookupConv2d` without bias, or a plain convolution if the dictionary is no smaller than what it describes.

    Raises:
        ValueError: a dictionary without words, or a push below 0.
    """
    if words < 1:
        raise ValueError(f"a dictionary has {words} words, but must have at least 1")
    if push < 0:
        raise ValueError(f"push is {push}, but must be a number that is not below 0, such as 0.1 or 0.3")
    if words >= outputs * size**2:
        return nn.Conv2d(inputs, outputs, size, stride, padding, bias=False)
    return LookupConv2d(inputs, outputs, size, words, stride=stride, padding=padding, push=push)


@student("lcnn_alexnet")
def lcnn_alexnet(
    *,
    num_classes: Count = 1000,
    first: Count = 3,
    words: Count = 100,
    linear: Count = 1024,
    push: NonNegative = 0.1,
    small_images: bool = False,
    channels: Count = 3,
) -> nn.Module:
    """AlexNet in its form of one column, with batch normalisation; all layers but the last look up.

    Args:
        num_classes: size of the output.
        first: words of the first layer's dictionary.
        words: of each other convolution's.
        linear: of each linear layer's; the first of them is a 6x6 convolution.
        push: how strongly coefficients are pushed to zero; the more, the fewer remain.
        small_images: the first convolution is 3x3 with stride 1, and no pooling follows it.
        channels: of the input.

    Raises:
        ValueError: a dictionary without words, or a push below 0.
    """
    build = partial(lookup, push=push)
    size, stride, padding = (3, 1, 1) if small_images else (11, 4, 2)
    layers: dict[str, nn.Module] = {
        "stage1": _layer(build(channels, 64, size, first, stride=stride, padding=padding), 64),
        "pool1": nn.Identity() if small_images else nn.MaxPool2d(3, stride=2),
    }
    inputs = 64
    for number, convolutions in enumerate(ALEXNET, start=2):
        stage = layers[f"stage{number}"] = nn.Sequential()
        for outputs, size in convolutions:
            stage.extend(_layer(build(inputs, outputs, size, words, padding=size // 2), outputs))
            inputs = outputs
        layers[f"pool{number}"] = nn.MaxPool2d(3, stride=2)
    layers |= {
        "avgpool": nn.AdaptiveAvgPool2d(6),
        "dropout6": nn.Dropout(),
        "fc6": _layer(build(inputs, 4096, 6, linear), 4096),
        "dropout7": nn.Dropout(),
        "fc7": _layer(build(4096, 4096, 1, linear), 4096),
        "flatten": nn.Flatten(),
        "fc8": nn.Linear(4096, num_classes),
    }
    return Network(layers, stages=("stage1", "stage2", "stage3"))


def _layer(convolution: nn.Module, outputs: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


@student("lcnn_resnet20")
def lcnn_resnet20(
    *, num_classes: Count = 10, first: Count = 3, words: Count = 16, push: NonNegative = 0.1, channels: Count = 3
) -> nn.Module:
    """`resnet20`, for images of about 32x32; all layers look up but the shortcuts and the last.

    Args:
        num_classes: size of the output.
        first: words of the first layer's dictionary.
        words: of each other layer's.
        push: how strongly coefficients are pushed to zero; the more, the fewer remain.
        channels: of the input.

    Raises:
        ValueError: a dictionary without words, or a push below 0.
    """

    def build(path: str, conv: nn.Conv2d) -> nn.Module:
        if conv.kernel_size == (1, 1):
            return conv
        dictionary = first if path == "conv1" else words
        size, stride, padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
        return lookup(conv.in_channels, conv.out_channels, size, dictionary, stride=stride, padding=padding, push=push)

    return replace_convolutions(resnet20(num_classes=num_classes, channels=channels), build)


@torch.no_grad()
def lookup_macs(network: nn.Module, images: Tensor) -> int:
    """Multiply-accumulates for one image if all zeros are left out: convolutions and linear layers, nothing else.

    Args:
        network: any, with layers of this file.
        images: (batch, channels, height, width); only the shape of one matters.
    """
    total = 0

    def count(layer: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, LookupConv2d):
            total += layer.macs(args[0].shape[2], args[0].shape[3])
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            total += output[0].numel() * layer.weight[0].numel()

    handles = [layer.register_forward_hook(count) for layer in network.modules()]
    try:
        network(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    return total
