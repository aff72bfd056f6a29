"""Low rank: exact where the weight has that rank, smaller by the formula, the best there is otherwise."""

import logging
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from distill.artifact import Artifact
from distill.compress.svd import svd, unfold
from distill.errors import RecipeError


def low_rank_conv(rank: int, scheme: str, **geometry: object) -> nn.Conv2d:
    """A convolution whose weight, cut by ``scheme``, has the given rank; made by plain sums over the rank."""
    torch.manual_seed(rank)
    conv = nn.Conv2d(8, 10, kernel_size=(3, 5), **geometry)
    shapes = {"spatial": ("oxw", (10, 5), "ixh", (8, 3)), "channel": ("ox", (10,), "ixhw", (8, 3, 5))}[scheme]
    weight = torch.zeros_like(conv.weight)
    for _ in range(rank):
        second, first = torch.randn(shapes[1]), torch.randn(shapes[3])
        equation = {"spatial": "ow,ih->oihw", "channel": "o,ihw->oihw"}[scheme]
        weight += torch.einsum(equation, second, first)
    conv.weight.data = weight
    return conv


@pytest.mark.parametrize("scheme", ["spatial", "channel"])
@pytest.mark.parametrize(
    "geometry",
    [
        {},
        {"stride": (2, 3), "padding": (1, 2)},
        {"dilation": (2, 1), "padding": (2, 3), "bias": False},
        {"padding": "same", "dilation": 2},
        {"padding": (1, 2), "padding_mode": "reflect"},
        {"padding": (2, 1), "padding_mode": "circular", "stride": 2},
    ],
    ids=str,
)
def test_a_convolution_of_low_rank_is_replaced_exactly(scheme: str, geometry: dict[str, object]) -> None:
    conv = low_rank_conv(2, scheme, **geometry)
    done = svd(Artifact(nn.Sequential(conv)), energy=1.0, scheme=scheme)
    assert done.plans[0].layers == {"0": {"rank": 2, "scheme": scheme}}
    images = torch.randn(2, 8, 13, 14)
    torch.testing.assert_close(done.model(images), conv(images), rtol=1e-4, atol=1e-4)


def test_a_linear_layer_of_low_rank_is_replaced_exactly() -> None:
    linear = nn.Linear(20, 15)
    linear.weight.data = torch.randn(15, 3) @ torch.randn(3, 20)
    done = svd(Artifact(nn.Sequential(linear)), energy=1.0)
    assert done.plans[0].layers["0"]["rank"] == 3
    rows = torch.randn(7, 20)
    torch.testing.assert_close(done.model(rows), linear(rows), rtol=1e-4, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(energy=st.floats(0.05, 0.999), scheme=st.sampled_from(["spatial", "channel"]), seed=st.integers(0, 99))
def test_the_energy_kept_is_as_asked_and_no_rank_is_wasted(energy: float, scheme: str, seed: int) -> None:
    torch.manual_seed(seed)
    conv = nn.Conv2d(8, 10, 3)
    conv.weight.data *= torch.rand(10, 8, 1, 1) ** 4  # some structure
    done = svd(Artifact(nn.Sequential(conv)), energy=energy, scheme=scheme)
    if not done.plans:
        return
    rank = done.plans[0].layers["0"]["rank"]
    first, second = (half.weight.detach() for half in done.model[0])
    equation = {"spatial": "rihx,oryw->oihw", "channel": "rihw,orxy->oihw"}[scheme]
    error = float((torch.einsum(equation, first, second) - conv.weight.detach()).square().sum())
    kept = 1 - error / float(conv.weight.detach().square().sum())
    assert kept >= energy - 1e-5
    spectrum = torch.linalg.svdvals(unfold(conv.weight.detach(), scheme)).square()
    assert float(spectrum[: rank - 1].sum() / spectrum.sum()) < energy + 1e-5


@pytest.mark.parametrize(("scheme", "per_rank"), [("spatial", 16 * 3 + 24 * 3), ("channel", 16 * 9 + 24)])
def test_the_ratio_is_of_parameters(scheme: str, per_rank: int) -> None:
    conv = nn.Conv2d(16, 24, 3, bias=False)
    for ratio in (0.1, 0.3, 0.77):
        model = svd(Artifact(nn.Sequential(conv)), ratio=ratio, scheme=scheme).model
        count = sum(p.numel() for p in model.parameters())
        assert count == int(ratio * 24 * 16 * 9 / per_rank) * per_rank
        assert count <= ratio * conv.weight.numel()


def test_both_halves_are_scaled_alike() -> None:
    model = svd(Artifact(nn.Sequential(nn.Linear(30, 20, bias=False))), ratio=0.5).model
    first, second = (half.weight for half in model[0])
    torch.testing.assert_close(first.norm(dim=1), second.norm(dim=0))


def test_what_would_not_get_smaller_stays_and_is_said_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3))
    model[2].weight.data = torch.ones(8, 8, 3, 3)
    with caplog.at_level(logging.DEBUG, logger="distill"):
        done = svd(Artifact(model), energy=0.99)
    assert list(done.plans[0].layers) == ["2"]
    assert done.model[1].weight.shape == (8, 4, 1, 1)
    assert caplog.messages == [
        "svd: 2: ranks (1,), 576 -> 48 parameters, relative error 0.000",
        "svd: left as they are, in groups: 0",
        "svd: left as they are, would get no smaller: 1",
        "svd: 1 layers, 576 -> 48 parameters; left as they are: 1 (in groups), 1 (would get no smaller)",
    ]


def test_subclasses_and_shared_weights_stay() -> None:
    class Standardised(nn.Conv2d):
        pass

    model = nn.ModuleDict({"own": Standardised(8, 8, 3), "a": nn.Linear(8, 8), "b": nn.Linear(8, 8)})
    model["b"].weight = model["a"].weight
    assert not svd(Artifact(model), ratio=0.2).plans


def test_a_layer_used_twice_is_replaced_everywhere() -> None:
    shared = nn.Linear(16, 16)
    model = svd(Artifact(nn.Sequential(shared, nn.ReLU(), shared)), ratio=0.5).model
    assert model[0] is model[2]
    assert isinstance(model[0], nn.Sequential)


@pytest.mark.parametrize("setting", [{"ratio": 0.0}, {"ratio": 1.0}, {"energy": 0.0}, {"energy": 1.1}])
def test_settings_out_of_range(setting: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match="0 < ratio < 1 and 0 < energy <= 1, not ratio="):
        svd(Artifact(nn.Linear(4, 4)), **setting)


def test_spatial_cuts_cost_the_papers_multiplications() -> None:
    """Jaderberg et al., section 2.2: rank * (in * height + width * out) per position."""
    model = svd(Artifact(nn.Sequential(nn.Conv2d(16, 24, 3, padding=1, bias=False))), ratio=0.25).model
    rank = model[0][0].out_channels
    per_position = sum(prod(half.weight.shape) for half in model[0])
    assert per_position == rank * (16 * 3 + 3 * 24)
