"""Correlations between channels."""

import pytest
import torch
from torch import Tensor, nn

from distill.losses.ickd import InterChannelCorrelation, correlations


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_ickd_matches_the_definition() -> None:
    loss = InterChannelCorrelation((8, 3, 4, 4), (8, 5, 2, 2))
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 2, 2)
    connected, expected = loss.connector(student), 0.0

    def rows(image: Tensor) -> list[Tensor]:
        products = [torch.stack([(a * b).sum() for b in image]) for a in image]
        return [row / row.norm() for row in products]

    for ours, theirs in zip(connected, teacher):
        expected += sum((a - b).square().sum() for a, b in zip(rows(ours), rows(theirs))) / (5 * 2)
    torch.testing.assert_close(loss(student, teacher), expected)


def test_ickd_is_zero_where_the_same_channels_look_elsewhere() -> None:
    """Which pixels a channel answers to is left open; only how alike the channels are counts."""
    loss = InterChannelCorrelation((8, 4, 3, 3), (8, 4, 3, 3))
    loss.connector = nn.Identity()
    teacher = torch.randn(2, 4, 3, 3)
    moved = teacher.flatten(2)[:, :, torch.randperm(9)].unflatten(2, (3, 3))
    assert loss(moved, teacher).item() == pytest.approx(0, abs=1e-10)
    assert loss(teacher.roll(1, dims=1), teacher) > 0.1


def test_ickd_of_uncorrelated_channels_is_the_identity() -> None:
    maps = torch.eye(4).reshape(1, 4, 2, 2) * torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1, 1)
    torch.testing.assert_close(correlations(maps), torch.eye(4)[None])


def test_ickd_is_finite_where_a_channel_of_the_teacher_is_silent() -> None:
    loss = InterChannelCorrelation((8, 3, 4, 4), (8, 5, 2, 2))
    student, teacher = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 5, 2, 2)
    teacher[:, 1] = 0
    loss(student, teacher).backward()
    assert student.grad.isfinite().all()
