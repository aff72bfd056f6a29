"""Sparse shifts: exact in whole pixels, taught as if they were interpolated, drawn to nothing."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import students
from distill.export.onnx_file import answer, serialize, session
from distill.models.surgery import deployable
from students.fenet import FeatureBlock, SparseShift, moved
from tests.students.test_counts import million_macs, on_meta


def by_loops(x: Tensor, offsets: list[tuple[int, int]]) -> Tensor:
    result = torch.zeros_like(x)
    height, width = x.shape[2:]
    for channel, (dy, dx) in enumerate(offsets):
        for row in range(height):
            for column in range(width):
                if 0 <= row + dy < height and 0 <= column + dx < width:
                    result[:, channel, row, column] = x[:, channel, row + dy, column + dx]
    return result


def interpolated(x: Tensor, shift: Tensor) -> Tensor:
    """By torch's own bilinear sampling, one channel after the other."""
    height, width = x.shape[2:]
    maps = []
    for channel, (a, b) in enumerate(shift):
        rows = (torch.arange(height) + a) * 2 / (height - 1) - 1
        columns = (torch.arange(width) + b) * 2 / (width - 1) - 1
        places = torch.stack([columns.expand(height, -1), rows[:, None].expand(-1, width)], dim=2)
        one = x[:, channel : channel + 1]
        maps.append(F.grid_sample(one, places.expand(len(x), -1, -1, -1), align_corners=True))
    return torch.cat(maps, dim=1)


@given(
    offsets=st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=1, max_size=5),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
@settings(deadline=None, max_examples=30)
def test_offsets_move_channels_and_zeros_come_in(offsets: list[tuple[int, int]], size: tuple[int, int]) -> None:
    x = torch.randn(2, len(offsets), *size)
    assert torch.equal(moved(x, torch.tensor(offsets)), by_loops(x, offsets))


def test_it_computes_with_rounded_offsets() -> None:
    layer, x = SparseShift(4), torch.randn(2, 4, 5, 5)
    layer.shift.data = torch.tensor([[0.4, -0.4], [0.6, 1.4], [-0.6, -1.6], [3.0, -2.7]])
    assert torch.equal(layer(x), by_loops(x, [(0, 0), (1, 1), (-1, -2), (3, -3)]))


def test_it_begins_as_the_shift_of_a_3x3_window() -> None:
    x = torch.randn(1, 20, 6, 6)
    assert torch.equal(SparseShift(20)(x), students.shiftnet.Shift(20)(x))


@pytest.mark.parametrize("seed", range(3))
def test_offsets_learn_by_the_bilinear_form(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, weights = torch.randn(2, 2, 3, 6, 5, generator=generator, dtype=torch.float64)
    layer = SparseShift(3).double()
    layer.shift.data = 6 * torch.rand(3, 2, generator=generator, dtype=torch.float64) - 3  # never whole numbers
    (layer(x) * weights).sum().backward()
    step = 1e-6
    for place in range(6):
        change = torch.zeros(6, dtype=torch.float64).index_fill(0, torch.tensor(place), step).reshape(3, 2)
        up, down = ((interpolated(x, layer.shift.data + sign * change) * weights).sum() for sign in (1, -1))
        assert layer.shift.grad.flatten()[place].item() == pytest.approx((up - down).item() / (2 * step), abs=1e-6)


def test_the_gradient_of_the_input_goes_back_by_the_rounded_offset() -> None:
    x, weights = torch.randn(2, 1, 3, 4, 4)
    layer = SparseShift(3)
    layer.shift.data = torch.tensor([[1.2, -0.7], [0.0, 0.3], [-2.4, 1.0]])
    (layer(x.requires_grad_()) * weights).sum().backward()
    assert torch.equal(x.grad, by_loops(weights, [(-1, 1), (0, 0), (2, -1)]))


def test_where_nothing_need_be_moved_all_offsets_end_at_zero() -> None:
    layer = SparseShift(18, sparsity=0.1)
    learns = torch.optim.SGD(layer.parameters(), lr=0.5)
    x = F.pad(torch.rand(4, 18, 4, 4), [3, 3, 3, 3])  # its sum stays the same, wherever it is moved
    assert layer.shift.round().any(dim=1).float().mean() == pytest.approx(16 / 18)
    for _ in range(25):
        learns.zero_grad()
        (layer(x).sum((2, 3)) - 1).square().mean().backward()
        learns.step()
    assert not layer.shift.round().any()


def test_where_channels_must_be_moved_those_stay_and_others_do_not() -> None:
    torch.manual_seed(0)
    planted = torch.tensor([[-1, -1], [0, 0], [0, 1], [0, 0], [0, 0], [0, 0], [1, 0], [0, 0], [0, 0]])
    layer = SparseShift(9, sparsity=0.02)
    layer.shift.data[[0, 2, 6]] = torch.tensor([[-0.6, -0.6], [-0.4, 0.6], [0.6, 0.4]])
    learns = torch.optim.SGD(layer.parameters(), lr=0.5)
    for _ in range(100):
        x = F.avg_pool2d(F.pad(torch.randn(8, 9, 8, 8), [3, 3, 3, 3]), 5, stride=1)
        learns.zero_grad()
        (4 * (layer(5 * x) - moved(5 * x, planted)).square().mean()).backward()
        learns.step()
    assert torch.equal(layer.shift.round().long(), planted)


def test_a_feature_block_computes_on_the_last_channels_most_often() -> None:
    block = FeatureBlock(16, 4, torch.nn.Identity(), sparsity=0.0)
    seen: list[int] = []
    for part in block.parts:
        part.register_forward_pre_hook(lambda part, args: seen.append(args[0].shape[1]))
    x = torch.randn(2, 16, 5, 5)
    result = block(x)
    assert seen == [2, 4, 8]
    assert torch.equal(result[:, :8], x[:, :8])
    assert (result[:, 8:] != x[:, 8:]).any((0, 2, 3)).all()


@pytest.mark.parametrize(("width", "expands"), [(1.0, "inputs"), (1.375, "inputs")])
def test_macs_are_those_of_the_paper(width: float, expands: str) -> None:
    network = on_meta("fe_net", {"width": width, "expands": expands})
    assert million_macs(network, 224) == pytest.approx({1.0: 301, 1.375: 563}[width], rel=0.005)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"width": 0.3}, "width is 0.3, but must be a multiple of 1/8"),
        ({"width": 0.0}, "width is 0.0, but must be a multiple of 1/8"),
        ({"sparsity": -1.0}, "sparsity is -1.0, but must be a number from 0"),
        ({"expands": "both"}, "expands is both, but must be one of inputs, outputs"),
    ],
)
def test_settings_without_a_network_are_refused(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        students.fe_net(**setting)


@pytest.mark.parametrize("farthest", [1, 3, 4])
def test_a_shift_that_has_learned_moves_and_exports_alike(farthest: int) -> None:
    torch.manual_seed(0)
    layer, x = SparseShift(5), torch.randn(2, 5, 6, 7)
    layer.shift.data = torch.tensor([[0.4, -0.4], [1.4, 0.6], [-0.6, -1.4], [0.0, -farthest], [1.0, 1.0]])
    with torch.no_grad():
        small = deployable(layer)
        assert torch.equal(small(x), layer(x))
        assert torch.equal(answer(session(serialize(small, x)), x), layer(x))


def test_it_computes_the_same_in_onnx_and_is_no_larger_there() -> None:
    torch.manual_seed(0)
    network, images = students.fe_net(num_classes=7, width=0.25, small_images=True), torch.randn(3, 3, 32, 32)
    file = serialize(deployable(network), images)
    weights = 4 * sum(parameter.numel() for parameter in network.parameters())
    assert len(file) < 1.5 * weights
    with torch.no_grad():
        found = answer(session(file), images)
        torch.testing.assert_close(found, network.eval()(images), rtol=1e-4, atol=1e-4)
