"""Wu et al.: Shift: A Zero FLOP, Zero Parameter Alternative to Spatial Convolutions. arXiv:1711.08141.

ShiftResNets follow the authors' code (alvinwan/shiftresnet-cifar) and have its counts. The table of ShiftNet-A, B and C
was not at hand: A and B are rebuilt from the description, with the MACs that are published (1.4 G and 371 M) and
parameters that round down to them (4.1 M and 1.1 M); C has the numbers of modules, but A's expansions.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from distill.registry.ranges import Count, Positive
from students import student
from students._blocks import Network, head, initialised, residual_stages, stem


class Shift(nn.Module):
    """Moves each channel by one offset of a k x k window; zeros come in. No parameters, no MACs.

    The channels are as many equal groups as the window has offsets; what is left over stays where it is. A convolution
    after it can mix the groups, so their order does not matter.

    Args:
        channels: of the input.
        kernel_size: of the window, odd.
        dilation: step between neighbouring offsets.

    Raises:
        ValueError: a window without a middle, or a step below 1.
    """

    kernel: Tensor

    def __init__(self, channels: int, kernel_size: int = 3, dilation: int = 1) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}, but must be one of 1, 3, 5, ...")
        if dilation < 1:
            raise ValueError(f"dilation is {dilation}, but must be one of 1, 2, 3, ...")
        self.dilation, self.reach = dilation, dilation * (kernel_size // 2)
        self.offsets = grid(kernel_size, dilation)
        group = channels // len(self.offsets)
        self.sizes = [group] * len(self.offsets)
        if left := channels - sum(self.sizes):
            self.offsets, self.sizes = [*self.offsets, (0, 0)], [*self.sizes, left]
        steps = [(dy // dilation, dx // dilation) for dy, dx in self.offsets]
        each = [step for step, size in zip(steps, self.sizes, strict=True) for _ in range(size)]
        self.register_buffer("kernel", one_hot(each, kernel_size // 2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():  # one node in place of one for each offset; ONNX Runtime is quicker with it
            return F.conv2d(x, self.kernel, padding=self.reach, dilation=self.dilation, groups=len(self.kernel))
        height, width = x.shape[2:]
        groups = F.pad(x, [self.reach] * 4).split(self.sizes, dim=1)
        moved = []
        for group, (dy, dx) in zip(groups, self.offsets, strict=True):
            top, left = self.reach + dy, self.reach + dx
            moved.append(group[:, :, top : top + height, left : left + width])
        return torch.cat(moved, dim=1)


def grid(kernel_size: int, dilation: int = 1) -> list[tuple[int, int]]:
    """The offsets (rows, columns) of a window, row by row."""
    steps = [dilation * step for step in range(-(kernel_size // 2), kernel_size // 2 + 1)]
    return [(dy, dx) for dy in steps for dx in steps]


def one_hot(offsets: Sequence[Sequence[int]], reach: int) -> Tensor:
    """Depthwise kernels that move each channel by rows and columns of at most ``reach``: (channels, 1, size, size)."""
    size = 2 * reach + 1
    places = torch.tensor([(reach + row) * size + reach + column for row, column in offsets])
    return torch.zeros(len(offsets), size**2).scatter(1, places[:, None], 1.0).reshape(-1, 1, size, size)


class Block(nn.Module):
    """Convolution, shift, convolution, both 1x1: the paper's CSC module.

    Args:
        inputs: channels.
        outputs: channels; where ``joins``, those that are added to the inputs.
        stride: of the second convolution.
        expansion: channels in between, as a multiple of ``outputs``.
        kernel_size: of the shift's window.
        joins: the outputs are put behind the pooled inputs, in place of a sum.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        *,
        expansion: float,
        kernel_size: int = 3,
        joins: bool = False,
    ) -> None:
        super().__init__()
        middle = int(expansion * outputs)
        self.branch = nn.Sequential(
            Conv2dNormActivation(inputs, middle, 1, inplace=False),
            Shift(middle, kernel_size),
            Conv2dNormActivation(middle, outputs, 1, stride, inplace=False),
        )
        self.pool = nn.AvgPool2d(3, stride, padding=1) if joins else None
        self.downsample: nn.Module = nn.Identity()
        if not joins and (stride != 1 or inputs != outputs):
            self.downsample = Conv2dNormActivation(inputs, outputs, 1, stride, activation_layer=None)

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            return torch.cat([self.branch(x), self.pool(x)], dim=1)
        return self.branch(x) + self.downsample(x)


def _resnet(depth: int) -> Callable[..., nn.Module]:
    def build(*, num_classes: Count = 10, expansion: Positive = 3.0, channels: Count = 3) -> nn.Module:
        if not 1 / 16 <= expansion < float("inf"):
            raise ValueError(f"expansion is {expansion}, but must be at least 1/16; the paper has 1, 3, 6 and 9")
        block = partial(Block, expansion=expansion)
        stages = residual_stages(block, blocks=(depth - 2) // 6, widths=(16, 16, 32, 64))
        layers = {"stem": Conv2dNormActivation(channels, 16, 3, inplace=False), **stages, **head(64, num_classes)}
        return initialised(Network(layers, tuple(stages)))

    build.__doc__ = f"""A ResNet-{depth} for images of about 32x32; each block is a shift between two 1x1 convolutions.

    Args:
        num_classes: size of the output.
        expansion: channels that are shifted, as a multiple of the block's; the paper has 1, 3, 6 and 9.
        channels: of the input.

    Raises:
        ValueError: an expansion that leaves no channels.
    """
    return build


shift_resnet20 = student("shift_resnet20")(_resnet(depth=20))
shift_resnet56 = student("shift_resnet56")(_resnet(depth=56))
shift_resnet110 = student("shift_resnet110")(_resnet(depth=110))

EXPANSIONS = ((4, 4), (4, 3), (3, 2), (2, 1))
"""Of the first module of each stage, and of the others."""


def _shiftnet(
    about: str, *, first: int, blocks: Sequence[int], kernel_sizes: Sequence[int]
) -> Callable[..., nn.Module]:
    def build(*, num_classes: Count = 1000, small_images: bool = False, channels: Count = 3) -> nn.Module:
        original = nn.Conv2d(3, first, 7, stride=2, padding=3, bias=False)
        layers: dict[str, nn.Module] = {
            "conv1": stem(original, channels=channels, small_images=small_images),
            "bn1": nn.BatchNorm2d(first),
            "relu": nn.ReLU(),
        }
        width = first
        for i, (count, kernel_size) in enumerate(zip(blocks, kernel_sizes, strict=True)):
            expansion, later = EXPANSIONS[i]
            halving = Block(width, width, 2, expansion=expansion, kernel_size=kernel_size, joins=True)
            width *= 2
            rest = [Block(width, width, 1, expansion=later, kernel_size=kernel_size) for _ in range(count - 1)]
            layers[f"stage{i + 1}"] = nn.Sequential(halving, *rest)
        stages = tuple(path for path in layers if path.startswith("stage"))
        return initialised(Network(layers | head(width, num_classes), stages))

    build.__doc__ = f"""{about} Approximately the paper's: see the head of the file.

    Args:
        num_classes: size of the output.
        small_images: the first convolution is 3x3 and has stride 1.
        channels: of the input.
    """
    return build


shiftnet_a = student("shiftnet_a")(
    _shiftnet("Stages of 64 to 512 channels.", first=32, blocks=(5, 6, 7, 3), kernel_sizes=(5, 5, 3, 3))
)
shiftnet_b = student("shiftnet_b")(
    _shiftnet("ShiftNet-A with half of its channels.", first=16, blocks=(5, 6, 7, 3), kernel_sizes=(5, 5, 3, 3))
)
shiftnet_c = student("shiftnet_c")(
    _shiftnet("ShiftNet-B with fewer modules.", first=16, blocks=(1, 4, 4, 3), kernel_sizes=(3, 3, 3, 3))
)
