"""Maximum mean discrepancy between the channels of two maps."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses.nst import neuron_selectivity


def test_nst_matches_the_definition() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4)

    def kernel(these: Tensor, those: Tensor) -> Tensor:
        pairs = [(a.flatten(), b.flatten()) for a in these for b in those]
        return sum(((a @ b) / (a.norm() * b.norm())) ** 2 for a, b in pairs) / len(pairs)

    images = list(zip(student, teacher, strict=True))
    expected = sum(kernel(s, s) + kernel(t, t) - 2 * kernel(s, t) for s, t in images) / len(images)
    torch.testing.assert_close(neuron_selectivity(student, teacher), expected)


def test_nst_is_the_distance_of_mean_pixel_correlations() -> None:
    """The kernel's features are the products of two pixels: their means over channels, compared by the squared norm."""
    student, teacher = torch.randn(1, 6, 3, 3), torch.randn(1, 4, 3, 3)

    def correlation(features: Tensor) -> Tensor:
        unit = F.normalize(features[0].flatten(1), dim=1)
        return unit.T @ unit / len(unit)

    expected = (correlation(student) - correlation(teacher)).square().sum()
    torch.testing.assert_close(neuron_selectivity(student, teacher), expected)


def test_nst_is_zero_for_the_same_channels_in_any_order_at_any_scale() -> None:
    teacher = torch.randn(4, 8, 6, 6)
    student = teacher[:, torch.randperm(8)] * torch.linspace(0.1, 10, 8)[:, None, None]
    assert neuron_selectivity(student, teacher).item() == pytest.approx(0, abs=1e-7)
    assert neuron_selectivity(torch.randn(4, 8, 6, 6), teacher) > 1e-3


def test_nst_counts_each_channel_once_however_often_it_comes() -> None:
    teacher = torch.randn(4, 8, 6, 6)
    assert neuron_selectivity(teacher.repeat(1, 3, 1, 1), teacher).item() == pytest.approx(0, abs=1e-7)


def test_nst_pools_the_larger_map() -> None:
    student, teacher = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)
    torch.testing.assert_close(
        neuron_selectivity(student, teacher), neuron_selectivity(F.avg_pool2d(student, 2), teacher)
    )


def test_nst_of_a_silent_channel_has_a_finite_gradient() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4)
    student[:, 1] = 0
    student.requires_grad_()
    neuron_selectivity(student, teacher).backward()
    assert student.grad.isfinite().all()
    assert (student.grad[:, 1] == 0).all()
