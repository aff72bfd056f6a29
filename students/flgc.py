"""Wang et al.: Fully Learnable Group Convolution for Acceleration of Deep Neural Networks. arXiv:1904.00346.

Which input channels and which filters form a group is learned along with the weights. Then the groups run as dense
convolutions side by side, each of its own size.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init
from torchvision.models.mobilenetv2 import InvertedResidual

from distill.registry.ranges import Count, Width
from students import student
from students.mobilenet import mobilenet_v2


class LearnedGroupConv(nn.Module):
    """A convolution that learns groups: it connects a filter with an input channel only where both are in one group.

    Every input channel and every filter has a score for each group, and is in the group of its highest.

    Args:
        conv: what it takes the place of and whose weights it trains; without groups, padded with zeros.
        groups: how many. Some may end up empty.

    Raises:
        ValueError: fewer groups than 1, or a convolution of another kind.
    """

    unsettled = "still learns its groups: put 'flgc', which makes them,"
    """Why a hook that knows structure but no values cannot do with it yet."""

    def __init__(self, conv: nn.Conv2d, groups: int) -> None:
        super().__init__()
        if groups < 1:
            raise ValueError(f"groups is {groups}, but must be at least 1")
        if conv.groups > 1 or conv.padding_mode != "zeros":
            raise ValueError("groups are learned by convolutions that have none and are padded with zeros")
        self.stride, self.padding, self.dilation = conv.stride, conv.padding, conv.dilation
        self.weight, self.bias = conv.weight, conv.bias
        # Scores begin close to each other, so that a few steps can change which is the highest.
        self.input_scores = nn.Parameter(0.01 * torch.randn(conv.in_channels, groups).to(conv.weight))
        self.filter_scores = nn.Parameter(0.01 * torch.randn(conv.out_channels, groups).to(conv.weight))

    def forward(self, x: Tensor) -> Tensor:
        connected = membership(self.filter_scores) @ membership(self.input_scores).T
        weight = self.weight * connected[:, :, None, None]
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation)

    def assignments(self) -> dict[str, list[int]]:
        """The group of each input channel and of each filter: arguments of `GroupedConv`."""
        return {"inputs": self.input_scores.argmax(1).tolist(), "filters": self.filter_scores.argmax(1).tolist()}

    def deploy(self) -> "GroupedConv":
        """The same function, computed within the groups alone."""
        return GroupedConv(self, **self.assignments())


def membership(scores: Tensor) -> Tensor:
    """One for the highest score of each row, zero for the others; gradients pass as if it were the rows' softmax.

    Args:
        scores: (channels, groups)
    """
    soft = scores.softmax(dim=1)
    return F.one_hot(scores.argmax(dim=1), scores.shape[1]) + (soft - soft.detach())  # exactly 0 and 1


class GroupedConv(nn.Module):
    """Dense convolutions of groups of any size: gather the inputs of each, convolve, put the results in order.

    Args:
        layer: whose weights, as far as they are within a group, and geometry it gets.
        inputs: the group of each input channel.
        filters: the group of each filter. Filters of a group without inputs return their bias.

    Raises:
        ValueError: no group has both.
    """

    gather: Tensor
    order: Tensor

    def __init__(self, layer: nn.Conv2d | LearnedGroupConv, inputs: Sequence[int], filters: Sequence[int]) -> None:
        super().__init__()
        readers, makers = _members(inputs), _members(filters)
        groups = sorted(readers.keys() & makers.keys())
        if not groups:
            raise ValueError("no group has both input channels and filters")
        self.convs = nn.ModuleList(_part(layer, readers[group], makers[group]) for group in groups)
        self.sizes = [len(readers[group]) for group in groups]
        silent = [filter for group in makers if group not in groups for filter in makers[group]]
        self.silent = len(silent)
        made = [filter for group in groups for filter in makers[group]] + silent
        gather = [channel for group in groups for channel in readers[group]]
        device = layer.weight.device
        # They follow from the arguments, which are stored with the network.
        self.register_buffer("gather", torch.tensor(gather, device=device), persistent=False)
        self.register_buffer("order", torch.tensor(made, device=device).argsort(), persistent=False)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        parts = x.index_select(1, self.gather).split(self.sizes, dim=1)
        made = torch.cat([conv(part) for conv, part in zip(self.convs, parts, strict=True)], dim=1)
        result = F.pad(made, (0, 0, 0, 0, 0, self.silent)).index_select(1, self.order)
        return result if self.bias is None else result + self.bias[:, None, None]


def _members(assignments: Sequence[int]) -> dict[int, list[int]]:
    """Group -> the channels in it, of those groups that have some."""
    members: dict[int, list[int]] = {}
    for channel, group in enumerate(assignments):
        members.setdefault(group, []).append(channel)
    return members


def _part(layer: nn.Conv2d | LearnedGroupConv, inputs: list[int], filters: list[int]) -> nn.Conv2d:
    weight = layer.weight.detach()[filters][:, inputs]
    conv = skip_init(
        nn.Conv2d,
        len(inputs),
        len(filters),
        tuple(weight.shape[2:]),
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        bias=False,
    )
    conv.weight = nn.Parameter(weight)
    assert isinstance(conv, nn.Conv2d)
    return conv


@student("flgc_mobilenet_v2")
def flgc_mobilenet_v2(
    *, num_classes: Count = 1000, groups: Count = 8, width: Width = 1.0, small_images: bool = False, channels: Count = 3
) -> nn.Module:
    """MobileNetV2 whose 1x1 convolutions that project, the last of each block, learn groups.

    Args:
        num_classes: size of the output.
        groups: of each of these convolutions.
        width: multiplies every number of channels, rounded to multiples of 8; the last layer never has below 1280.
        small_images: the first convolution and the second stage have stride 1.
        channels: of the input.

    Raises:
        ValueError: fewer groups than 1, or a width that is not above 0.
    """
    network = mobilenet_v2(num_classes=num_classes, width=width, small_images=small_images, channels=channels)
    for block in network.modules():
        if isinstance(block, InvertedResidual):
            block.conv[-2] = LearnedGroupConv(block.conv[-2], groups)
    return network
