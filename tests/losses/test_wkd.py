"""Distances of normal distributions, against their closed form with full covariance matrices."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn

from distill.losses.wkd import FLOOR, WassersteinDistance, moments


def wasserstein(first: np.ndarray, second: np.ndarray) -> float:
    """Squared 2-Wasserstein distance of two (channels, pixels) samples, taken for normal with independent channels."""
    covariances = [np.diag(one.var(1) + FLOOR) for one in (first, second)]
    root = sqrtm(covariances[0])
    cross = sqrtm(root @ covariances[1] @ root)
    return float(np.sum((first.mean(1) - second.mean(1)) ** 2) + np.trace(sum(covariances) - 2 * cross.real))


def plain(shape: tuple[int, ...], **settings) -> WassersteinDistance:
    loss = WassersteinDistance(shape, shape, **settings)
    loss.connector = nn.Identity()
    return loss


@pytest.mark.parametrize("grid", [1, 2])
def test_wkd_is_the_mean_distance_of_the_cells(grid: int) -> None:
    student, teacher = torch.randn(3, 4, 6, 6), 2 * torch.randn(3, 4, 8, 8) + 1
    cells = [
        [one[n, :, y * size : (y + 1) * size, x * size : (x + 1) * size].flatten(1).double().numpy()]
        for n in range(3)
        for y in range(grid)
        for x in range(grid)
        for one, size in ((student, 6 // grid), (teacher, 8 // grid))
    ]
    pairs = [wasserstein(a[0], b[0]) for a, b in zip(cells[::2], cells[1::2], strict=True)]
    assert plain(student.shape, grid=grid)(student, teacher).item() == pytest.approx(np.mean(pairs), rel=1e-4)


def test_wkd_weighs_means() -> None:
    maps = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(plain(maps.shape, mean_weight=3.0)(maps + 2, maps), torch.tensor(3.0 * 3 * 4))


def test_wkd_ignores_where_in_a_cell_a_value_is() -> None:
    maps = torch.randn(2, 3, 4, 4)
    shuffled = maps.flatten(2)[:, :, torch.randperm(16)].unflatten(2, (4, 4))
    assert plain(maps.shape)(shuffled, maps).item() == pytest.approx(0, abs=1e-8)


def test_wkd_finds_small_variances_around_large_means() -> None:
    maps = 1000 + torch.randn(2, 3, 4, 4, dtype=torch.float64)
    _, deviation = moments(maps.float(), 1)
    exact = (maps.flatten(2).var(2, correction=0) + FLOOR).sqrt()
    torch.testing.assert_close(deviation.flatten(1), exact.float(), rtol=1e-4, atol=0)


def test_wkd_of_constant_maps_has_a_finite_gradient() -> None:
    maps = torch.zeros(2, 3, 4, 4, requires_grad=True)
    plain(maps.shape)(maps, torch.randn(2, 3, 4, 4)).backward()
    assert maps.grad.isfinite().all()
