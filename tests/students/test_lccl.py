"""Gated convolutions: what the gate leaves out is zero, is not computed, and is counted as the authors count it."""

import copy
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import students
from distill.export.onnx_file import answer, serialize, session
from students.lccl import Gated, GatedBlock, Saving, saving, skip
from tests.nets import settled

KINDS = [{}, {"grid": 2}, {"full_width": True}, {"grid": 3, "full_width": True}]


def conv(inputs: int = 6, outputs: int = 8, stride: int = 1, **settings: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, **settings)


@torch.no_grad()
def opened(gated: Gated, bias: float) -> Gated:
    """With a gate that is the same for all pixels."""
    gated.gate[1].weight.zero_()
    gated.gate[1].bias.fill_(bias)
    return gated


@pytest.mark.parametrize("kind", KINDS)
def test_where_the_gate_is_zero_the_outputs_are(kind: dict[str, Any]) -> None:
    torch.manual_seed(0)
    gated, x = Gated(conv(), **kind), torch.randn(2, 6, 9, 9)
    gate = gated.gate(x)
    assert gate.shape[1] == (8 if "full_width" in kind else 1)
    shut = (gate == 0).expand(-1, 8, -1, -1)
    assert 0.2 < shut.float().mean() < 0.8
    assert torch.equal(gated(x) == 0, shut)


def test_a_grid_decides_by_the_maxima_of_its_cells_and_between_them() -> None:
    torch.manual_seed(0)
    gated, x = Gated(conv(1, 1), grid=2).eval(), torch.randn(3, 1, 3, 4) - 1
    torch.nn.init.ones_(gated.gate[0].weight)
    right, below = x[:, :, :2, 2:].amax((1, 2, 3)), x[:, :, 2:, :2].amax((1, 2, 3))
    corners = [[x[:, :, :2, :2].amax((1, 2, 3)), right], [below, x[:, :, 2:, 2:].amax((1, 2, 3))]]
    expected = torch.zeros(3, 1, 3, 4)
    for row, column in product(range(3), range(4)):
        down, along = row / 2, column / 3  # from the first cell to the last
        shares = [[(1 - down) * (1 - along), (1 - down) * along], [down * (1 - along), down * along]]
        between = sum(shares[i][j] * corners[i][j] for i, j in product(range(2), range(2)))
        expected[:, 0, row, column] = between.relu()
    assert 0 < expected.count_nonzero() < expected.numel()
    torch.testing.assert_close(gated.gate(x), expected, rtol=1e-4, atol=1e-5)


def test_with_a_stride_every_pixel_has_its_own_gate() -> None:
    torch.manual_seed(0)
    x, images = torch.randn(2, 6, 9, 9), torch.zeros(2, 6, 9, 9)
    gated = Gated(conv(stride=2), grid=4).eval()
    images[:, :, ::2, ::2] = x[:, :, ::2, ::2]  # the pixels between are not looked at
    assert torch.equal(gated.gate(x), gated.gate(images))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "make",
    [
        conv,
        lambda: conv(stride=2),
        lambda: conv(bias=False),
        lambda: nn.Conv2d(6, 8, (3, 5), (2, 1), padding=(0, 2)),
    ],
)
def test_computing_kept_pixels_only_changes_nothing(make: Callable[[], nn.Conv2d], kind: dict[str, Any]) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 6, 9, 7)
    original = make()
    gated = Gated(original, **kind).eval()
    gated.gate[0].stride = (1, 1)
    gated.gate = nn.Sequential(nn.AdaptiveAvgPool2d(original(x).shape[2:]), gated.gate)
    with torch.no_grad():
        torch.testing.assert_close(skip(gated)(x), skip(gated, on=False)(x), rtol=1e-5, atol=1e-5)


def test_a_whole_network_skips_and_answers_the_same() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 16, 16)
    network = settled(students.lccl_resnet20(), images)
    with torch.no_grad():
        for gated in [module for module in network.modules() if isinstance(module, Gated)]:
            gated.gate[1].bias.zero_()  # so that half of the pixels go
        expected = network(images)
        assert macs(skip(network), images) < macs(skip(network, on=False), images)
        torch.testing.assert_close(skip(network)(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_skip_and_answer_the_same(kind: dict[str, Any]) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 16, 16)
    blocks = settled(nn.Sequential(GatedBlock(3, 8, 1, **kind), GatedBlock(8, 16, 2, **kind)), images)
    with torch.no_grad():
        expected = blocks(images)
        assert macs(skip(blocks), images) < macs(skip(blocks, on=False), images)
        torch.testing.assert_close(skip(blocks)(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_network_has_gradients_of_the_usual_size(kind: dict[str, Any], seed: int) -> None:
    """With plain weights, which square activations block after block, the first gradient is 4,000."""
    torch.manual_seed(seed)
    network, images = students.lccl_resnet20(**kind), torch.randn(32, 3, 28, 28)
    F.cross_entropy(network(images), torch.arange(32) % 10).backward()
    assert network.conv1.weight.grad.norm() < 10


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_passes_its_settings_on(kind: dict[str, Any]) -> None:
    gates = [module for module in students.lccl_resnet20(**kind).modules() if isinstance(module, Gated)]
    assert len(gates) == 18
    for gated in gates:
        outputs = gated.conv.out_channels if "full_width" in kind else 1
        assert gated.gate[0].weight.shape[:2] == (outputs, gated.conv.in_channels)
        assert gated.grid == (kind.get("grid", 1) if gated.conv.stride == (1, 1) else 1)


def macs(network: nn.Module, images: Tensor) -> float:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(images)
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_kept_costs_something(kind: dict[str, Any]) -> None:
    torch.manual_seed(0)
    gated, x = skip(Gated(conv(), **kind).eval()), torch.randn(2, 6, 9, 9)
    kept = int((gated.gate(x) > 0).expand(-1, 8, -1, -1).sum())
    cells = {1: 81, 2: 25, 3: 9}[kind.get("grid", 1)]
    gate = 2 * cells * 6 * (8 if "full_width" in kind else 1)
    assert macs(gated, x) == kept * 9 * 6 + gate
    assert macs(opened(gated, -1.0), x) == gate


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_trains_never_skips(kind: dict[str, Any]) -> None:
    gated, x = skip(Gated(conv(), **kind)), torch.randn(2, 6, 9, 9)
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


@pytest.mark.parametrize(("bias", "zeros"), [(1.0, 0.0), (-1.0, 1.0)])
@pytest.mark.parametrize(
    ("kind", "cost"),
    [
        ({"grid": 3}, 1 / (9 * 6) / 3**2 + 81 * (6 + 8) / (81 * 9 * 6 * 8)),  # pooled and interpolated values too
        ({"full_width": True}, 1 / 9),
        ({"grid": 3, "full_width": True}, 1 / 9 / 3**2 + 81 * (6 + 8) / (81 * 9 * 6 * 8)),
    ],
)
def test_the_saving_of_other_gates_is_the_formula(kind: dict[str, Any], cost: float, bias: float, zeros: float) -> None:
    network = nn.Sequential(opened(Gated(conv(), **kind), bias))
    found = saving(network, torch.randn(2, 6, 9, 9))
    assert found.macs == 81 * 9 * 6 * 8
    assert found.saved / found.macs == pytest.approx(zeros - cost)


@torch.no_grad()
def test_outputs_with_gates_of_their_own_are_saved_one_by_one() -> None:
    gated = opened(Gated(conv(), full_width=True), 1.0)
    gated.gate[1].bias[:3] = -1.0
    found = saving(nn.Sequential(gated), torch.randn(2, 6, 9, 9))
    assert found.saved / found.macs == pytest.approx(3 / 8 - 1 / 9)
    assert found.blocks_saved == pytest.approx(found.saved)


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


@pytest.mark.parametrize(("kind", "added"), [({"grid": 4}, 6 + 2), ({"full_width": True}, 8 * (6 + 2))])
def test_other_gates_add_what_their_outputs_need(kind: dict[str, Any], added: int) -> None:
    layer = conv()
    plain = sum(parameter.numel() for parameter in layer.parameters())
    assert sum(parameter.numel() for parameter in Gated(layer, **kind).parameters()) == plain + added


def test_a_cell_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="grid is 0, but a cell has at least 1 pixel"):
        students.lccl_resnet20(grid=0)


@pytest.mark.parametrize("settings", [{"groups": 2}, {"dilation": 2}, {"padding_mode": "reflect"}])
def test_other_convolutions_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="only a convolution without groups and dilation"):
        Gated(conv(**settings))


def test_it_computes_the_same_in_onnx() -> None:
    torch.manual_seed(0)
    images = torch.randn(3, 4, 9, 9)
    network = settled(nn.Sequential(GatedBlock(4, 4, 1, grid=2), GatedBlock(4, 4, 1, full_width=True)), images)
    with torch.no_grad():
        found = answer(session(serialize(network, images)), images)
        torch.testing.assert_close(found, network(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [{}, {"full_width": True}, {"grid": 4}], ids=str)
def test_gates_leave_the_size_of_gradients_at_the_start(kind: dict[str, int]) -> None:
    torch.manual_seed(0)
    gated = students.lccl_resnet20(**kind)
    plain = copy.deepcopy(gated)
    for path, module in [(path, m) for path, m in plain.named_modules() if isinstance(m, Gated)]:
        plain.set_submodule(path, module.conv)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    for network in (gated, plain):
        F.cross_entropy(network(images), labels).backward()
    first, usual = (network.get_parameter("conv1.weight").grad.norm() for network in (gated, plain))
    assert usual / 3 < first < 3 * usual
