"""Interleaved group convolutions are dense kernels in few parameters."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import students
from students.interleaved import InterleavedGroupConv, structured_sparse


def dense(conv: nn.Conv2d) -> Tensor:
    """The kernel of a grouped convolution with the zeros between its groups, entry by entry."""
    kernel = torch.zeros(conv.out_channels, conv.in_channels, *conv.kernel_size)
    outputs, inputs = conv.out_channels // conv.groups, conv.in_channels // conv.groups
    for output in range(conv.out_channels):
        start = output // outputs * inputs
        kernel[output, start : start + inputs] = conv.weight[output].detach()
    return kernel


def permutation(rows: int, columns: int) -> Tensor:
    """Channel ``columns * i + j`` becomes channel ``rows * j + i``, as a matrix."""
    matrix = torch.zeros(rows * columns, rows * columns)
    for i in range(rows):
        for j in range(columns):
            matrix[rows * j + i, columns * i + j] = 1
    return matrix


@torch.no_grad()
@pytest.mark.parametrize(("inputs", "outputs", "primary", "stride"), [(12, 12, 3, 1), (6, 12, 3, 2), (8, 16, 8, 1)])
def test_an_interleaved_group_convolution_is_one_dense_convolution(
    inputs: int, outputs: int, primary: int, stride: int
) -> None:
    layer = InterleavedGroupConv(inputs, outputs, stride, primary=primary)
    permute = permutation(primary, outputs // primary)
    linear = permute.T @ dense(layer.secondary)[:, :, 0, 0] @ permute
    kernel = torch.einsum("om,mihw->oihw", linear, dense(layer.primary))
    assert kernel.abs().sum(dim=(2, 3)).all()
    images = torch.randn(2, inputs, 7, 7)
    torch.testing.assert_close(layer(images), F.conv2d(images, kernel, None, stride, 1), rtol=1e-5, atol=1e-5)


@given(primary=st.integers(1, 12), secondary=st.integers(1, 12))
def test_it_is_wider_than_a_dense_convolution_of_as_many_parameters_from_two_groups_on(
    primary: int, secondary: int
) -> None:
    width = primary * secondary
    with torch.device("meta"):
        layer = InterleavedGroupConv(width, width, primary=primary)
        regular = nn.Conv2d(width, width, 3, bias=False)
    params, most = (sum(p.numel() for p in module.parameters()) for module in (layer, regular))
    assert params == width * (9 * secondary + primary)
    assert (params < most) == (primary > 1 and primary / (primary - 1) < 9 * secondary)


@torch.no_grad()
@pytest.mark.parametrize(("partition", "factors"), [(8, 2), (4, 3), (2, 4)])
def test_structured_sparse_factors_have_one_path_from_each_input_to_each_output(partition: int, factors: int) -> None:
    channels = partition**factors
    assert torch.equal(paths(channels, partition, factors), torch.ones(channels, channels))


def paths(channels: int, partition: int, factors: int) -> Tensor:
    """How many ways there are through the 1x1 convolutions, (outputs, inputs), counted by ones as weights."""
    _, *pointwise, _, _ = structured_sparse(channels, channels, 1, partition=partition, factors=factors)
    for layer in pointwise:
        for weight in layer.parameters():
            weight.fill_(1)
    return nn.Sequential(*pointwise)(torch.eye(channels)[:, :, None, None])[:, :, 0, 0].T


@torch.no_grad()
def test_the_loosened_form_connects_some_channels_and_none_twice() -> None:
    ways = paths(144, partition=8, factors=2)
    assert ways.unique().tolist() == [0, 1]
    assert ways.sum(1).eq(64).all()
    assert ways.sum(0).eq(64).all()


@torch.no_grad()
@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(64, 64, 1), (32, 64, 2)])
def test_a_structured_sparse_block_is_one_dense_convolution(inputs: int, outputs: int, stride: int) -> None:
    layers = structured_sparse(inputs, outputs, stride, partition=8, factors=2)
    channelwise, first, _, second, _ = layers[:-2]
    permute = permutation(8, 8)
    linear = permute @ dense(second)[:, :, 0, 0] @ permute @ dense(first)[:, :, 0, 0]
    kernel = torch.einsum("om,mihw->oihw", linear, dense(channelwise))
    images = torch.randn(2, inputs, 7, 7)
    torch.testing.assert_close(layers[:-2](images), F.conv2d(images, kernel, None, stride, 1), rtol=1e-5, atol=1e-5)


def test_shortcuts_of_the_cifar_network_surround_every_two_convolutions() -> None:
    network = students.igcnet(residual=True)
    assert [len(getattr(network, stage)) for stage in network.stages] == [3, 3, 3]
    plain, residual = (
        [module for module in students.igcnet(residual=shortcuts).modules() if isinstance(module, InterleavedGroupConv)]
        for shortcuts in (False, True)
    )
    assert len(plain) == len(residual) == 18


@pytest.mark.parametrize(
    ("build", "settings", "message"),
    [
        (students.igcnet, {"primary": 0}, "primary and secondary are 0 and 2, but groups are at least 1"),
        (students.igcnet, {"depth": 21}, "depth is 21, but must be 2 more than a multiple of 3, such as 20"),
        (students.igcnet, {"depth": 17, "residual": True}, "depth is 17, but must be 2 more than a multiple of 6"),
        (students.igcnet18, {"doubles": "both"}, "doubles is both, but must be one of primary, secondary"),
        (students.igcnet18, {"doubles": "primary", "secondary": 3}, "secondary is 3, but must be even"),
        (students.igcv2, {"width": 100}, "width is 100, but must be a multiple of partition, which is 8"),
        (students.igcv2, {"partition": 0}, "must be a multiple of partition, which is 0"),
        (students.igcv2, {"factors": 0}, "factors is 0, but must be at least 1"),
        (students.igcv2, {"depth": 2}, "depth is 2, but must be 2 more than a multiple of 3"),
    ],
)
def test_settings_without_a_network_are_refused(
    build: Callable[..., nn.Module], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(**settings)
