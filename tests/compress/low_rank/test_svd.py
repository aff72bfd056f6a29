"""Low rank: exact where the weight has that rank, smaller by the formula, the best there is otherwise."""

import logging
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.batch import Batch
from distill.compress import _layer_timing as _probe
from distill.compress.low_rank._matrices import unfold
from distill.compress.low_rank.svd import svd
from distill.errors import RecipeError
from distill.models.cost import macs
from tests.compress import nets


def cut(model: nn.Module, shape: tuple[int, ...], **settings: object) -> Artifact:
    """By the error of the weight, whatever the images are."""
    settings = {"weighting": "none", **settings}
    return svd(Artifact(model.eval()), nets.anything, nets.calibration(*shape), **settings)


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
    done = cut(nn.Sequential(conv), (8, 13, 14), max_error=1e-4, scheme=scheme)
    assert done.plans[0].layers == {"0": {"ranks": [2], "scheme": scheme}}
    images = torch.randn(2, 8, 13, 14)
    torch.testing.assert_close(done.model(images), conv(images), rtol=1e-4, atol=1e-4)


def test_a_linear_layer_of_low_rank_is_replaced_exactly() -> None:
    linear = nn.Linear(20, 15)
    linear.weight.data = torch.randn(15, 3) @ torch.randn(3, 20)
    done = cut(nn.Sequential(linear), (20,), max_error=1e-4)
    assert done.plans[0].layers["0"]["ranks"] == [3]
    rows = torch.randn(7, 20)
    torch.testing.assert_close(done.model(rows), linear(rows), rtol=1e-4, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(error=st.floats(0.05, 0.95), scheme=st.sampled_from(["spatial", "channel"]), seed=st.integers(0, 99))
def test_the_error_is_within_its_bound_and_no_rank_is_wasted(error: float, scheme: str, seed: int) -> None:
    torch.manual_seed(seed)
    conv = nn.Conv2d(8, 10, 3)
    conv.weight.data *= torch.rand(10, 8, 1, 1) ** 4  # some structure
    done = cut(nn.Sequential(conv), (8, 6, 6), max_error=error, scheme=scheme)
    if not done.plans:
        return
    (rank,) = done.plans[0].layers["0"]["ranks"]
    first, second = (half.weight.detach() for half in done.model[0])
    equation = {"spatial": "rihx,oryw->oihw", "channel": "rihw,orxy->oihw"}[scheme]
    rest = torch.einsum(equation, first, second) - conv.weight.detach()
    assert rest.norm() <= error * conv.weight.norm() + 1e-5
    spectrum = torch.linalg.svdvals(unfold(conv.weight.detach(), scheme)).square()
    assert float(spectrum[rank - 1 :].sum() / spectrum.sum()) ** 0.5 > error - 1e-5


@pytest.mark.parametrize(("scheme", "per_rank"), [("spatial", 16 * 3 + 24 * 3), ("channel", 16 * 9 + 24)])
def test_a_budget_of_parameters_is_used_up(scheme: str, per_rank: int) -> None:
    conv = nn.Conv2d(16, 24, 3, bias=False)
    for part in (0.1, 0.3, 0.77):
        model = cut(nn.Sequential(conv), (16, 6, 6), max_params=part, scheme=scheme).model
        count = sum(p.numel() for p in model.parameters())
        assert count == int(part * 24 * 16 * 9 / per_rank) * per_rank


@pytest.mark.parametrize("scheme", ["spatial", "channel"])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_budget_of_macs_is_counted_as_they_are(scheme: str, stride: int) -> None:
    conv = nn.Conv2d(16, 24, 3, stride=stride, padding=1, bias=False)
    images = torch.randn(1, 16, 12, 10)
    for part in (0.3, 0.6):
        model = cut(nn.Sequential(conv), (16, 12, 10), max_macs=part, scheme=scheme).model
        rank = model[0][0].out_channels
        per_rank = macs(model, images) / rank
        assert macs(model, images) <= part * macs(conv, images) < macs(model, images) + per_rank


class Recurrent(nn.Module):
    """One convolution that runs six times, and one that runs once."""

    def __init__(self) -> None:
        super().__init__()
        self.once, self.again = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.once(x)
        for _ in range(6):
            x = self.again(x).relu()
        return x


@pytest.mark.parametrize("part", [0.3, 0.6])
def test_a_layer_that_runs_several_times_costs_as_often(part: float) -> None:
    torch.manual_seed(0)
    whole, images = Recurrent(), torch.randn(1, 3, 8, 8)
    model = cut(whole, (3, 8, 8), max_macs=part, layers=["again"]).model
    per_rank = 6 * macs(model.again, torch.randn(1, 16, 8, 8)) / model.again[0].out_channels
    assert macs(model, images) <= part * macs(whole, images) < macs(model, images) + per_rank


def test_errors_that_images_do_not_show_cost_nothing() -> None:
    """Inputs that lie in a plane: rank 2 is enough for them, whatever the weight is."""
    torch.manual_seed(0)
    linear = nn.Linear(24, 24, bias=False)
    rows = torch.randn(64, 2) @ torch.randn(2, 24)
    batches = [Batch(rows, torch.zeros(64), torch.arange(64))]
    left = {}
    for weighting in ("none", "inputs", "outputs"):
        done = svd(Artifact(nn.Sequential(linear)), nets.anything, batches, max_params=0.2, weighting=weighting)
        left[weighting] = float((done.model(rows) - linear(rows)).detach().norm() / linear(rows).detach().norm())
    assert left["none"] > 0.3
    assert max(left["inputs"], left["outputs"]) < 0.01


def test_both_halves_are_scaled_alike() -> None:
    model = cut(nn.Sequential(nn.Linear(30, 20, bias=False)), (30,), max_params=0.5, weighting="outputs").model
    first, second = (half.weight for half in model[0])
    torch.testing.assert_close(first.norm(dim=1), second.norm(dim=0))


def test_what_would_not_get_smaller_stays_and_is_said_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3))
    model[2].weight.data = torch.ones(8, 8, 3, 3)
    with caplog.at_level(logging.DEBUG, logger="distill"):
        done = cut(model, (4, 9, 9), max_error=0.1)
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

    class Parallel(nn.Module):
        def __init__(self, parts: nn.ModuleDict) -> None:
            super().__init__()
            self.parts = parts

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.parts["own"](inputs).sum() + self.parts["a"](inputs) + self.parts["b"](inputs)

    model = nn.ModuleDict({"own": Standardised(8, 8, 3), "a": nn.Linear(8, 8), "b": nn.Linear(8, 8)})
    model["b"].weight = model["a"].weight
    assert not cut(Parallel(model), (8, 8, 8), max_error=0.9).plans


def test_a_layer_used_twice_is_replaced_everywhere() -> None:
    shared = nn.Linear(16, 16)
    model = cut(nn.Sequential(shared, nn.ReLU(), shared), (16,), max_params=0.5).model
    assert model[0] is model[2]
    assert isinstance(model[0], nn.Sequential)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_error": 0.0}, "max_error is 0.0, but it is a part of the weight: above 0, below 1"),
        ({"max_error": 1.0}, "max_error is 1.0"),
        ({"max_params": 0}, "max_params is 0, but it is a part of the network's parameters, or above 1 their number"),
        ({"max_macs": -1}, "max_macs is -1"),
        ({"max_drop": -0.1}, "max_drop is -0.1, but it is the largest loss of the task's monitor: 0 or more"),
        ({"max_drop": float("nan")}, "max_drop is nan"),
        ({"max_drop": 0.1, "max_error": 0.1}, "max_error and max_drop: give one of them"),
        (
            {"max_params": 0.01},
            r"max_params allows 3 params of 272, but the least possible here is 48: max_params of 0.177",
        ),
    ],
)
def test_numbers_that_cannot_be_met(settings: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        cut(nn.Sequential(nn.Linear(16, 16)), (16,), **settings)


def test_spatial_cuts_cost_the_papers_multiplications() -> None:
    """Jaderberg et al., section 2.2: rank * (in * height + width * out) per position."""
    model = cut(nn.Sequential(nn.Conv2d(16, 24, 3, padding=1, bias=False)), (16, 6, 6), max_params=0.25).model
    rank = model[0][0].out_channels
    per_position = sum(prod(half.weight.shape) for half in model[0])
    assert per_position == rank * (16 * 3 + 3 * 24)


def test_speed_changes_only_what_gets_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine where each layer takes 100 us and each weight 1 ns, two small layers are slower than one."""

    def seconds(module: nn.Module, shape: tuple[int, ...]) -> tuple[float, float]:
        weights = [m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d)]
        return (1e-4 * len(weights) + 1e-9 * sum(weights),) * 2

    monkeypatch.setattr(_probe, "seconds", seconds)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1024, 1024, 1), nn.Conv2d(1024, 8, 1), nn.Conv2d(8, 8, 1))
    done = cut(model, (1024, 5, 5), max_error=0.99, aim="speed")
    assert list(done.plans[0].layers) == ["0"]
    assert done.plans[0].layers["0"]["ranks"][0] % 8 == 0


def test_a_layer_is_timed_in_the_runtime_that_runs_it() -> None:
    layer, shape = nn.Conv2d(64, 64, 3, padding=1), (64, 8, 8)
    timed = _probe.seconds(layer, shape)
    assert timed is not None
    assert all(0 < seconds < 1 for seconds in timed)
    assert _probe.seconds(nn.Sequential(layer, nn.ReLU()), shape) is None
