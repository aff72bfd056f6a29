"""Shifts are convolutions with one-hot kernels that cost nothing."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import students
from distill.export.onnx_file import answer, serialize, session
from students.shiftnet import Block, Shift
from tests.students.test_counts import million_macs, on_meta


def one_hot(channels: int, kernel_size: int) -> Tensor:
    """Depthwise kernels, written down group by group: (channels, 1, kernel_size, kernel_size)."""
    kernels = torch.zeros(channels, 1, kernel_size * kernel_size)
    for channel in range(channels):
        group = channel // max(1, channels // kernel_size**2)
        left_over = channel >= channels // kernel_size**2 * kernel_size**2
        kernels[channel, 0, kernel_size**2 // 2 if left_over else group] = 1
    return kernels.unflatten(2, (kernel_size, kernel_size))


@given(
    channels=st.integers(1, 60),
    kernel_size=st.sampled_from([1, 3, 5]),
    dilation=st.integers(1, 3),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 9),
)
@settings(deadline=None, max_examples=50)
def test_a_shift_is_a_depthwise_convolution_with_one_hot_kernels(
    channels: int, kernel_size: int, dilation: int, size: tuple[int, int], seed: int
) -> None:
    images = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(seed))
    expected = F.conv2d(
        images,
        one_hot(channels, kernel_size),
        padding=dilation * (kernel_size // 2),
        dilation=dilation,
        groups=channels,
    )
    assert torch.equal(Shift(channels, kernel_size, dilation)(images), expected)


def test_a_shift_has_no_parameters_and_costs_no_macs() -> None:
    shift, counter = Shift(27), FlopCounterMode(display=False)
    with counter:
        shift(torch.randn(1, 27, 8, 8))
    assert counter.get_total_flops() == 0
    assert not shift.state_dict()


def test_the_gradient_of_a_shift_goes_back_where_it_came_from() -> None:
    images = torch.randn(1, 11, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Shift(11), images)


@pytest.mark.parametrize("setting", [{"kernel_size": 2}, {"kernel_size": -1}, {"dilation": 0}])
def test_a_window_without_a_middle_is_refused(setting: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(setting))} is .*, but must be one of"):
        Shift(9, **setting)


def test_channels_that_are_left_over_are_not_moved() -> None:
    images = torch.randn(1, 13, 5, 5)
    moved = Shift(13)(images)
    assert torch.equal(moved[:, 9:], images[:, 9:])
    assert torch.equal(moved[:, 4], images[:, 4])
    assert not torch.equal(moved[:, 0], images[:, 0])


@pytest.mark.parametrize(("name", "params", "macs"), [("shiftnet_a", 4.1, 1400), ("shiftnet_b", 1.1, 371)])
def test_shiftnets_are_close_to_the_paper(name: str, params: float, macs: float) -> None:
    network = on_meta(name, {})
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(params, rel=0.08)
    assert million_macs(network, 224) == pytest.approx(macs, rel=0.02)


def test_where_a_block_joins_the_pooled_input_comes_last() -> None:
    images = torch.randn(1, 6, 8, 8)
    joined = Block(6, 10, 2, expansion=2, joins=True).eval()(images)
    assert joined.shape == (1, 16, 4, 4)
    assert torch.equal(joined[:, 10:], F.avg_pool2d(images, 3, 2, padding=1))


@pytest.mark.parametrize("expansion", [0.0, -1.0, float("inf")])
def test_an_expansion_that_leaves_no_channels_is_refused(expansion: float) -> None:
    with pytest.raises(ValueError, match="expansion is .*, but must be at least 1/16"):
        students.shift_resnet20(expansion=expansion)


@pytest.mark.parametrize(("name", "options"), [("shift_resnet20", {}), ("shiftnet_c", {"small_images": True})])
def test_it_computes_the_same_in_onnx(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    assert_same_in_onnx(getattr(students, name)(num_classes=7, **options))


def assert_same_in_onnx(network: nn.Module) -> None:
    images = torch.randn(3, 3, 16, 16)
    runtime = session(serialize(network, images))
    with torch.no_grad():
        torch.testing.assert_close(answer(runtime, images), network.eval()(images), rtol=1e-4, atol=1e-4)
