"""Channels as distributions over pixels."""

import pytest
import torch
import torch.nn.functional as F

from distill.losses.cwd import ChannelWise
from distill.losses.kd import soft_targets


@pytest.mark.parametrize("temperature", [4.0, 1.0])
def test_cwd_matches_the_definition(temperature: float) -> None:
    student, teacher = 3 * torch.randn(2, 3, 4, 4), 3 * torch.randn(2, 3, 4, 4)
    expected = 0.0
    for image in range(2):
        for channel in range(3):
            q = (student[image, channel].flatten() / temperature).softmax(0)
            p = (teacher[image, channel].flatten() / temperature).softmax(0)
            expected += temperature**2 / 3 * sum(a * (a / b).log() for a, b in zip(p, q, strict=True)) / 2
    loss = ChannelWise((2, 3, 4, 4), (2, 3, 4, 4), temperature=temperature)
    torch.testing.assert_close(loss(student, teacher), expected)


def test_cwd_is_kd_with_pixels_for_classes() -> None:
    student, teacher = torch.randn(2, 1, 2, 5), torch.randn(2, 1, 2, 5)
    loss = ChannelWise((2, 1, 2, 5), (2, 1, 2, 5))
    torch.testing.assert_close(loss(student, teacher), soft_targets(student.flatten(1), teacher.flatten(1)))


def test_cwd_does_not_see_what_a_channel_adds_everywhere() -> None:
    loss = ChannelWise((2, 3, 4, 4), (2, 3, 4, 4))
    teacher = torch.randn(2, 3, 4, 4)
    assert loss(teacher + torch.randn(2, 3, 1, 1), teacher).item() == pytest.approx(0, abs=1e-6)
    assert loss(2 * teacher, teacher) > 1e-2


def test_cwd_adapts_where_channels_differ() -> None:
    loss = ChannelWise((2, 3, 4, 4), (2, 5, 4, 4))
    assert [p.shape for p in loss.parameters()] == [(5, 3, 1, 1), (5,)]
    assert list(ChannelWise((2, 3, 4, 4), (2, 3, 4, 4)).parameters()) == []


def test_cwd_compares_at_the_smaller_size() -> None:
    loss = ChannelWise((2, 3, 8, 8), (2, 3, 4, 4))
    student, teacher = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(loss(student, teacher), loss(F.avg_pool2d(student, 2), teacher))


def test_cwd_is_finite_where_probabilities_underflow() -> None:
    loss = ChannelWise((1, 1, 1, 2), (1, 1, 1, 2))
    student = torch.tensor([[[[1e4, -1e4]]]]).requires_grad_()
    value = loss(student, -student.detach())
    value.backward()
    assert value.item() == pytest.approx(16 * 2e4 / 4)
    assert student.grad.isfinite().all()
