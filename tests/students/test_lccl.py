"""Gated convolutions: what the gate leaves out is zero, is not computed, and is counted as the authors count it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import students
from distill.onnx_file import answer, serialize, session
from students.lccl import Gated, GatedBlock, Saving, saving, skip
from tests.nets import settled


def conv(inputs: int = 6, outputs: int = 8, stride: int = 1, **settings: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, **settings)


@torch.no_grad()
def opened(gated: Gated, bias: float) -> Gated:
    """With a gate that is the same for all pixels."""
    gated.gate[1].weight.zero_()
    gated.gate[1].bias.fill_(bias)
    return gated


def test_where_the_gate_is_zero_all_outputs_are() -> None:
    torch.manual_seed(0)
    gated, x = Gated(conv()), torch.randn(2, 6, 9, 9)
    shut = (gated.gate(x) == 0).expand(-1, 8, -1, -1)
    assert 0.2 < shut.float().mean() < 0.8
    assert torch.equal(gated(x) == 0, shut)


@pytest.mark.parametrize(
    "make",
    [
        conv,
        lambda: conv(stride=2),
        lambda: conv(bias=False),
        lambda: nn.Conv2d(6, 8, (3, 5), (2, 1), padding=(0, 2)),
    ],
)
def test_computing_kept_pixels_only_changes_nothing(make: Callable[[], nn.Conv2d]) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 6, 9, 7)
    original = make()
    gated = Gated(original).eval()
    gated.gate = nn.Sequential(nn.AdaptiveAvgPool2d(original(x).shape[2:]), *gated.gate)
    gated.gate[1].stride = (1, 1)
    with torch.no_grad():
        torch.testing.assert_close(skip(gated)(x), skip(gated, on=False)(x), rtol=1e-5, atol=1e-5)


def test_a_whole_network_skips_and_answers_the_same() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 16, 16)
    network = settled(students.lccl_resnet20(), images)
    with torch.no_grad():
        expected = network(images)
        assert macs(skip(network), images) < macs(skip(network, on=False), images)
        torch.testing.assert_close(skip(network)(images), expected, rtol=1e-5, atol=1e-5)


def macs(network: nn.Module, images: Tensor) -> float:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(images)
    return counter.get_total_flops() / 2


def test_only_kept_pixels_cost_something() -> None:
    torch.manual_seed(0)
    gated, x = skip(Gated(conv()).eval()), torch.randn(2, 6, 9, 9)
    kept = int((gated.gate(x) > 0).sum())
    assert macs(gated, x) == kept * 9 * 6 * 8 + 2 * 81 * 6  # and the gate itself
    assert macs(opened(gated, -1.0), x) == 2 * 81 * 6


def test_a_network_that_trains_never_skips() -> None:
    gated, x = skip(Gated(conv())), torch.randn(2, 6, 9, 9)
    gated(x).sum().backward()
    assert all(parameter.grad is not None for parameter in gated.parameters())


@pytest.mark.parametrize(("bias", "zeros"), [(1.0, 0.0), (-1.0, 1.0)])
def test_the_saving_of_a_gate_is_the_formula(bias: float, zeros: float) -> None:
    network = nn.Sequential(opened(Gated(conv(stride=2)), bias))
    full = 5 * 5 * 9 * 6 * 8
    found = saving(network, torch.randn(2, 6, 9, 9))
    assert found.macs == full
    assert found.saved == pytest.approx(full * (zeros - 1 / (9 * 6)))
    assert found.blocks_saved == pytest.approx(full if zeros else found.saved)


def test_a_block_with_one_idle_convolution_is_saved_whole() -> None:
    block = GatedBlock(4, 4, 1)
    opened(block.conv1, 1.0)
    opened(block.conv2, -1.0)
    one = 36 * 9 * 4 * 4
    found = saving(nn.Sequential(block), torch.randn(3, 4, 6, 6))
    assert found == Saving(2 * one, pytest.approx(one * (1 - 2 / 36)), 2 * one)


def test_idle_blocks_are_counted_image_by_image() -> None:
    gated = Gated(conv(1, 1)).eval()
    with torch.no_grad():
        gated.gate[0].weight.fill_(1)  # open where the image is positive
    images = torch.stack([torch.ones(1, 4, 4), -torch.ones(1, 4, 4)])
    found = saving(nn.Sequential(gated), images)
    assert found.macs == 16 * 9
    assert found.saved == pytest.approx(16 * 9 * (0.5 - 1 / 9))
    assert found.blocks_saved == pytest.approx(16 * 9 * (0 - 1 / 9 + 1) / 2)


def test_a_gate_adds_a_parameter_for_each_input_and_two() -> None:
    gated = sum(parameter.numel() for parameter in students.lccl_resnet20().parameters())
    inputs = 7 * [16] + 6 * [32] + 5 * [64]  # of the 18 convolutions in blocks
    plain = 432 + sum(9 * i * o for i, o in zip(inputs, 6 * [16] + 6 * [32] + 6 * [64], strict=True))
    plain += 16 * 32 + 32 * 64 + 2 * (16 + sum(inputs[1:]) + 64) + 650
    assert gated == plain + sum(count + 2 for count in inputs)


@pytest.mark.parametrize("settings", [{"groups": 2}, {"dilation": 2}, {"padding_mode": "reflect"}])
def test_other_convolutions_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="only a convolution without groups and dilation"):
        Gated(conv(**settings))


def test_it_computes_the_same_in_onnx() -> None:
    torch.manual_seed(0)
    images = torch.randn(3, 3, 16, 16)
    network = settled(students.lccl_resnet20(num_classes=7), images)
    with torch.no_grad():
        found = answer(session(serialize(network, images)), images)
        torch.testing.assert_close(found, network(images), rtol=1e-4, atol=1e-4)
