"""Margins from batch norms, and distances that count only where they matter."""

import pytest
import torch
from torch import nn

from distill.losses.ofd import Overhaul, batch_norm_before, mean_below_zero
from tests.nets import ConvNet


def norm(scale: list[float], shift: list[float]) -> nn.BatchNorm2d:
    module = nn.BatchNorm2d(len(scale))
    module.weight.data, module.bias.data = torch.tensor(scale), torch.tensor(shift)
    return module


def test_ofd_margin_is_the_mean_of_the_negative_values() -> None:
    scale, shift = [1.0, 0.5, -2.0, 3.0], [0.0, 1.0, -1.0, 4.0]
    samples = torch.randn(2_000_000)
    expected = [(samples * s + m)[samples * s + m < 0].mean() for s, m in zip(scale, shift, strict=True)]
    torch.testing.assert_close(mean_below_zero(norm(scale, shift)), torch.stack(expected), rtol=0.01, atol=0.002)


def test_ofd_margin_of_values_that_are_hardly_ever_negative_is_minus_three_deviations() -> None:
    """Of a normal variable 3.1 deviations above zero, 0.00097 are negative; 3.08 above, 0.00104."""
    rare, less_rare = mean_below_zero(norm([2.0, 2.0], [6.2, 6.16])).tolist()
    assert rare == -6
    assert -1 < less_rare < 0


def test_ofd_margin_of_a_constant_is_finite() -> None:
    assert mean_below_zero(norm([0.0, 0.0, 0.0], [-1.5, 0.0, 2.0])).tolist() == [-1.5, 0, 0]


def overhaul(channels: tuple[int, ...] = (4, 8)) -> Overhaul:
    """Against the batch norms of a network of 2, 4 and 8 channels."""
    teacher = ConvNet(width=2)
    for i, module in enumerate(m for m in teacher.modules() if isinstance(m, nn.BatchNorm2d)):
        module.weight.data.uniform_(0.5, 2)
        module.bias.data.normal_(i - 1)
    shapes = [(3, c, 4, 4) for c in channels]
    return Overhaul([(3, 5, 4, 4)] * len(shapes), shapes, teacher, ["stage2.1", "stage3.1"][: len(shapes)])


def test_ofd_matches_the_definition() -> None:
    loss = overhaul()
    student = [torch.randn(3, 5, 4, 4) for _ in range(2)]
    teacher = [2 * torch.randn(3, channels, 4, 4) for channels in (4, 8)]
    expected = 0.0
    for i, weight in enumerate((0.5, 1.0)):
        reached, margin = loss.connectors[i](student[i]), loss.get_buffer(f"margin{i}").flatten()
        for image in range(3):
            for c in range(len(margin)):
                for s, t in zip(reached[image, c].flatten(), teacher[i][image, c].flatten(), strict=True):
                    goal = max(t, margin[c])
                    if s > goal or goal > 0:
                        expected += weight * (s - goal) ** 2 / 3
    torch.testing.assert_close(loss(student, teacher), expected)


def test_ofd_pulls_down_to_the_margin_and_no_further() -> None:
    loss = overhaul((4,))
    loss.connectors[0] = nn.Identity()
    margin = loss.margin0.expand(1, 4, 4, 4)
    teacher = torch.full((1, 4, 4, 4), -50.0)
    assert loss([margin - 0.1], [teacher]) == 0
    assert loss([margin + 0.1], [teacher]).item() == pytest.approx(0.01 * 64, rel=1e-3)
    assert loss([torch.full_like(teacher, 2.0)], [torch.full_like(teacher, 3.0)]).item() == 64


def test_ofd_takes_the_last_fitting_batch_norm_in_or_before_the_tap() -> None:
    teacher = nn.Sequential()
    for name, module in (("a", norm([1.0] * 4, [0.0] * 4)), ("b", norm([1.0] * 4, [0.0] * 4))):
        teacher.add_module(name, nn.Sequential(nn.Conv2d(4, 4, 1), module, nn.Conv2d(4, 4, 1), nn.BatchNorm2d(6)))
    teacher.add_module("ab", nn.BatchNorm2d(4))  # its name begins like another's
    for path, expected in (("a", "a.1"), ("a.1", "a.1"), ("b.0", "a.1"), ("b.2", "b.1"), ("b", "b.1"), ("ab", "ab")):
        assert batch_norm_before(path, teacher, channels=4) is teacher.get_submodule(expected)


@pytest.mark.parametrize(("path", "channels"), [("stage1.0", 2), ("stage2", 8), ("head", 10), ("", 8)])
def test_ofd_refuses_a_tap_without_a_batch_norm(path: str, channels: int) -> None:
    message = f"no BatchNorm2d of {channels} channels in or before the teacher's '{path}'"
    with pytest.raises(ValueError, match=message):
        batch_norm_before(path, ConvNet(width=2), channels=channels)


def test_ofd_refuses_a_tap_that_is_left_over() -> None:
    with pytest.raises(ValueError, match="ofd compares taps in pairs, but there are 2 of the student and 1"):
        Overhaul([(3, 5, 4, 4)] * 2, [(3, 4, 4, 4)], ConvNet(width=2), ["stage2"])


def test_ofd_trains_its_connectors_only() -> None:
    assert {name.split(".")[0] for name, _ in overhaul().named_parameters()} == {"connectors"}
