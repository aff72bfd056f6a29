"""Prabhu, Varma & Namboodiri: Deep Expander Networks: Efficient Deep Networks from Graph Theory. arXiv:1711.08757.

The channels of a convolution are connected by a random graph, drawn once: it is sparse, yet its paths soon lead from
every channel to every other. The networks are torchvision's DenseNet and our MobileNetV1 with such convolutions.

Where a convolution widens, the authors' DenseNet code leaves fewer connections than one in E, down to one in 2 E. Here
it is one in E throughout: so the counts come out as published.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init
from torchvision.models import DenseNet as TorchvisionDenseNet

from distill.registry.ranges import Count, Width
from students import student
from students._blocks import initialised
from students.mobilenet import mobilenet_v1


class XConv2d(nn.Module):
    """A convolution of few connections: each channel of its narrower end draws D distinct ones of the wider end.

    How many connections a channel of the wider end has is left to chance. What was drawn is a buffer, kept with the
    weights; of these there are only those of connections.

    Args:
        inputs: channels in.
        outputs: channels out. Where there are as many, inputs draw outputs.
        kernel_size: of square kernels, an odd number. The image keeps its size, but for the stride.
        stride: of the kernels.
        expander: E; D is the wider end's channels divided by it, so that one of E connections exists.
        gathered: compute with what exists alone. That costs few MACs, but memory for D copies of the narrower end, and
            more time than the other way: one dense convolution with zeros.

    Raises:
        ValueError: ``expander`` leaves no connection.
    """

    drawn: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int = 1,
        stride: int = 1,
        *,
        expander: Count = 2,
        gathered: bool = False,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.kernel_size, self.stride = inputs, outputs, kernel_size, stride
        self.gathered = gathered
        narrow, wide = sorted((inputs, outputs))
        if not 1 <= expander <= wide:
            raise ValueError(f"expander is {expander}, but must be from 1 to {wide}, a convolution's channels")
        drawn = torch.rand(narrow, wide).argsort(dim=1)[:, : wide // expander]
        self.register_buffer("drawn", drawn.short())  # 16 bits, because it is stored beside weights of 32
        self.weight = nn.Parameter(torch.empty(*drawn.shape, kernel_size, kernel_size))
        per_input = drawn.numel() / inputs
        nn.init.normal_(self.weight, std=(2 / (per_input * kernel_size**2)) ** 0.5)  # as `he_normal` does

    def forward(self, x: Tensor) -> Tensor:
        convolved = partial(F.conv2d, stride=self.stride, padding=self.kernel_size // 2)
        if not self.gathered:
            return convolved(x, self.kernel())
        drawn = self.drawn.long().flatten()
        if self.inputs > self.outputs:
            return convolved(x.index_select(1, drawn), self.weight, groups=self.outputs)
        products = convolved(x, self.weight.flatten(0, 1).unsqueeze(1), groups=self.inputs)
        sums = products.new_zeros(len(x), self.outputs, *products.shape[2:])
        return sums.index_add(1, drawn, products)

    def kernel(self) -> Tensor:
        """The dense kernel (outputs, inputs, height, width), with zeros where there is no connection."""
        narrow, wide = sorted((self.inputs, self.outputs))
        zeros = self.weight.new_zeros(narrow, wide, *self.weight.shape[2:])
        kernel = zeros.scatter(1, self.drawn.long()[:, :, None, None].expand_as(self.weight), self.weight)
        return kernel if self.inputs > self.outputs else kernel.transpose(0, 1)

    @torch.no_grad()
    def deploy(self) -> nn.Module:
        """The same function as a plain convolution, or as it is if it gathers."""
        if self.gathered:
            return self
        conv = skip_init(
            nn.Conv2d,
            self.inputs,
            self.outputs,
            self.kernel_size,
            self.stride,
            padding=self.kernel_size // 2,
            bias=False,
        )
        conv.weight = nn.Parameter(self.kernel().contiguous())
        return conv


@student("x_densenet")
def x_densenet(
    *,
    num_classes: Count = 10,
    growth: Count = 12,
    depth: Count = 40,
    expander: Count = 2,
    gathered: bool = False,
    channels: Count = 3,
) -> nn.Module:
    """X-DenseNet-BC-40-12-2 for images of about 32x32: all but the first convolution and the classifier are sparse.

    Args:
        num_classes: size of the output.
        growth: k, the channels that each layer adds; the paper has 24, 36, 48 and 60.
        depth: 4 and three blocks of so many layers of two convolutions each.
        expander: E, one of so many connections exists.
        gathered: see `XConv2d`.
        channels: of the input.

    Raises:
        ValueError: no growth, a depth without three equal blocks, or ``expander`` leaves no connection.
    """
    if growth < 1:
        raise ValueError(f"growth is {growth}, but must be at least 1")
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth is {depth}, but must be 4 more than a multiple of 6, such as 40 or 100")
    network = DenseNet(growth, (depth - 4) // 6, num_classes, channels)
    first = network.features.conv0
    _sparsify(
        network, [m for m in network.modules() if isinstance(m, nn.Conv2d) and m is not first], expander, gathered
    )
    return network


class DenseNet(TorchvisionDenseNet):
    """torchvision's network in its form for small images: three blocks, and no pooling before them."""

    stages = ("features.denseblock1", "features.denseblock2", "features.denseblock3")

    def __init__(self, growth: int, layers: int, num_classes: int, channels: int) -> None:
        super().__init__(growth, (layers, layers, layers), 2 * growth, num_classes=num_classes)
        self.features.conv0 = initialised(nn.Conv2d(channels, 2 * growth, 3, padding=1, bias=False))
        for name in ("norm0", "relu0", "pool0"):
            setattr(self.features, name, nn.Identity())


@student("x_mobilenet")
def x_mobilenet(
    *,
    num_classes: Count = 1000,
    width: Width = 0.5,
    expander: Count = 2,
    gathered: bool = False,
    small_images: bool = False,
    channels: Count = 3,
) -> nn.Module:
    """X-MobileNet0.5-2: MobileNetV1 whose 1x1 convolutions, but for the first, are sparse.

    Args:
        num_classes: size of the output.
        width: multiplies every number of channels.
        expander: E, one of so many connections exists; the paper has 2, 4, 8 and 16.
        gathered: see `XConv2d`.
        small_images: the first convolution has stride 1.
        channels: of the input.

    Raises:
        ValueError: a width that is not above 0, or ``expander`` leaves no connection.
    """
    network = mobilenet_v1(num_classes=num_classes, width=width, small_images=small_images, channels=channels)
    _, *pointwise = (m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1))
    _sparsify(network, pointwise, expander, gathered)
    return network


def _sparsify(network: nn.Module, convs: list[nn.Conv2d], expander: int, gathered: bool) -> None:
    """Put sparse convolutions in place of these."""
    paths = {module: path for path, module in network.named_modules()}
    for conv in convs:
        sparse = XConv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size[0],
            conv.stride[0],
            expander=expander,
            gathered=gathered,
        )
        network.set_submodule(paths[conv], sparse)
