"""Wide and tall filters side by side: their cost, their scale at the start, their square equivalents."""

from collections.abc import Callable
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import students
from distill.models import cost
from students.low_rank_filters import CompositeConv2d, Variant, low_rank


def weights(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.ndim == 4)


@pytest.mark.parametrize("size", [3, 5])
def test_it_has_a_part_of_the_weights_and_macs_of_square_filters(size: int) -> None:
    composite, images = CompositeConv2d(8, low_rank(12, size)), torch.empty(1, 8, 6, 7)
    square = nn.Conv2d(8, 12, size, padding=size // 2)
    assert weights(composite) * size == weights(square)
    assert cost.macs(composite, images) * size == cost.macs(square, images)


@torch.no_grad()
@pytest.mark.parametrize("filters", [{(1, 3): 3, (3, 1): 2}, {(1, 3): 2, (3, 1): 2, (3, 3): 3}])
def test_square_filters_with_zeros_around_compute_the_same(filters: dict[tuple[int, int], int]) -> None:
    layer, square = CompositeConv2d(4, filters), nn.Conv2d(4, sum(filters.values()), 3, padding=1)
    for branch in layer.branches:
        nn.init.normal_(branch.bias)
    padded = [F.pad(b.weight, [1 - b.padding[1]] * 2 + [1 - b.padding[0]] * 2) for b in layer.branches]
    square.weight.copy_(torch.cat(padded))
    square.bias.copy_(torch.cat([branch.bias for branch in layer.branches]))
    images = torch.randn(2, 4, 6, 5)
    torch.testing.assert_close(layer(images), square(images), rtol=1e-5, atol=1e-5)


def test_all_shapes_of_a_layer_begin_with_one_variance() -> None:
    layer = CompositeConv2d(64, {(1, 3): 64, (3, 1): 32, (3, 3): 32}, gain=2.0)
    expected = (2 / (3 * 64 + 3 * 32 + 9 * 32)) ** 0.5
    for branch in layer.branches:
        assert branch.weight.std().item() == pytest.approx(expected, rel=0.05)


@torch.no_grad()
def test_ten_layers_keep_the_size_of_activations_as_well_as_square_ones_do() -> None:
    torch.manual_seed(0)
    images = torch.randn(1, 64, 28, 28)
    square, composite = images, images
    for _ in range(10):
        convolution = nn.Conv2d(64, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        square = convolution(square).relu()
        composite = CompositeConv2d(64, low_rank(64, 3))(composite).relu()
    assert 0.5 < inner(composite, 10).var() / inner(square, 10).var() < 2
    assert 0.25 < inner(composite, 10).square().mean() < 4


def inner(maps: Tensor, layers: int) -> Tensor:
    """The pixels that so many 3x3 layers compute from inside of the image alone."""
    return maps[..., layers:-layers, layers:-layers]


@pytest.mark.parametrize("variant", get_args(Variant))
def test_layers_without_a_relu_behind_them_keep_the_size_too(variant: Variant) -> None:
    torch.manual_seed(0)
    network = students.vgg11_low_rank(variant=variant)
    stage = network.get_submodule("stage5")
    inputs = next(module for module in stage.modules() if isinstance(module, nn.Conv2d)).in_channels
    with torch.no_grad():
        assert 0.5 < inner(stage(torch.randn(1, inputs, 8, 8).relu() * 2**0.5), 2).square().mean() < 2
    kinds = [type(module) for module in stage]
    assert kinds.count(nn.ReLU) == 2
    assert kinds[-1] is nn.ReLU


def test_global_max_pooling_leaves_24_percent_of_vgg_11() -> None:
    with torch.device("meta"):
        vgg = torchvision.models.vgg11()
        network = students.vgg11_low_rank(variant="gmp")
    assert cost.params(network) / cost.params(vgg) == pytest.approx(0.242, abs=5e-4)
    assert weights(network) == weights(vgg) == 9_217_728


def test_low_rank_layers_leave_a_third_of_the_convolutions() -> None:
    images = torch.empty(1, 3, 224, 224, device="meta")
    linear = 512 * 4096 + 4096 * 4096 + 4096 * 1000
    with torch.device("meta"):
        whole, low = (students.vgg11_low_rank(variant=variant) for variant in ("gmp", "gmp-lr"))
    first = 3 * 64 * 9
    assert weights(low) - first == (weights(whole) - first) / 3
    assert weights(low) == 3_073_728
    macs = [cost.macs(network, images) - linear for network in (whole, low)]
    assert macs == [pytest.approx(7.485e9, rel=1e-4), pytest.approx(2.553e9, rel=1e-4)]


def test_the_part_of_whole_filters_goes_from_none_to_all() -> None:
    with torch.device("meta"):
        join, none, every, square = (
            weights(students.vgg11_low_rank(variant=variant, full=full))
            for variant, full in (
                ("gmp-lr-join", 0.25),
                ("gmp-lr-join-wfull", 0.0),
                ("gmp-lr-join-wfull", 1.0),
                ("gmp", 0.25),
            )
        )
    mixing = 128**2 + 2 * 256**2 + 4 * 512**2
    assert none == join
    assert every == square + mixing


@pytest.mark.parametrize(
    ("build", "settings", "message"),
    [
        (students.vgg11_low_rank, {"variant": "lr"}, "variant is lr, but must be one of gmp, gmp-lr, gmp-lr-2x, "),
        (students.vgg11_low_rank, {"full": 1.5}, "full is 1.5, but must be a part of the filters, from 0 to 1"),
        (students.nin, {"width": 0.0}, "width is 0.0, but must be a number above 0"),
        (students.nin_low_rank, {"width": -1.0}, "width is -1.0, but must be a number above 0"),
    ],
)
def test_settings_without_a_network_are_refused(
    build: Callable[..., nn.Module], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(**settings)
