"""Ranges of activations against closed forms and brute force."""

import pytest
import torch
from torch import Tensor, nn

from distill.compress._places import Place, Spot
from distill.compress.quantization._ranges import Histogram, histograms
from distill.models.fake_quantize import QuantizationParams


def seen(*batches: Tensor) -> Histogram:
    histogram = Histogram()
    for look in (histogram.widen, histogram.count):
        for batch in batches:
            look(batch)
    return histogram


def top(grid: QuantizationParams) -> float:
    return (255 - grid.zero) * grid.scale


def normal(count: int = 20_000, seed: int = 0) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def test_minmax_covers_all_batches() -> None:
    grid = seen(torch.tensor([0.5, -1.0]), torch.tensor([3.0])).grid("minmax", 0)
    assert grid == QuantizationParams.over(-1.0, 3.0)


def test_every_value_is_counted_once() -> None:
    histogram = seen(normal(), normal(seed=1))
    assert histogram.counts.sum() == 40_000


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9])
def test_percentile_is_torchs_quantile(percentile: float) -> None:
    values = normal().abs()
    grid = seen(values).grid("percentile", percentile)
    wanted = torch.quantile(values, percentile / 100)
    assert grid.zero == 0
    assert top(grid) == pytest.approx(float(wanted), abs=0.02)


def test_percentile_takes_from_both_ends_alike() -> None:
    values = normal()
    grid = seen(values).grid("percentile", 98.0)
    low, high = torch.quantile(values, torch.tensor([0.01, 0.99])).tolist()
    assert (-grid.zero * grid.scale, top(grid)) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))


def test_mse_is_as_good_as_brute_force_on_the_values_themselves() -> None:
    values = torch.cat([normal(5000).abs(), torch.tensor([20.0])])

    def error(grid: QuantizationParams) -> float:
        return float((grid(values) - values).square().mean())

    chosen = error(seen(values).grid("mse", 0))
    best = min(error(QuantizationParams.over(0.0, float(high))) for high in torch.linspace(2.6, 20, 400))
    assert chosen <= 1.02 * best
    assert chosen < error(QuantizationParams.over(0.0, 20.0))


@pytest.mark.parametrize("method", ["mse", "entropy"])
def test_nothing_is_cut_off_where_all_values_are_as_frequent(method: str) -> None:
    grid = seen(torch.linspace(0, 6, 40_001)).grid(method, 0)
    assert top(grid) == pytest.approx(6.0, rel=0.02)


def test_entropy_cuts_far_outliers_off_whatever_is_zero() -> None:
    values = torch.cat([normal().relu(), torch.tensor([300.0])])
    assert 4 < top(seen(values).grid("entropy", 0)) < 100


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "entropy"])
def test_a_value_that_never_changes_has_a_grid(method: str) -> None:
    for constant in (0.0, 2.0, -2.0):
        grid = seen(torch.full((10,), constant)).grid(method, 99.99)
        assert float(grid(torch.tensor([constant]))) == pytest.approx(constant, rel=0.01)


def test_values_at_one_place_are_counted_together() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(1, 1, 1))
    places = [Place(((Spot("0", "output"),), (Spot("1", "output"),))), Place(((Spot("1", "input"),),))]
    images = torch.randn(2, 1, 4, 4)
    both, one = histograms(model, places, [images, images], counted=True)
    assert both.counts.sum() == 2 * one.counts.sum() == 128
    assert one.high == pytest.approx(float(images.max()))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
