"""Learned rounding, against rounding to nearest, brute force and real forward passes."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.batch import Batch
from distill.compress._output_error import moments
from distill.compress.quantization.quantize import quantize
from tests.compress import nets

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(6, 5),
    "conv": lambda: nn.Conv2d(6, 5, 3, padding=1, stride=2),
    "grouped": lambda: nn.Conv2d(6, 9, (3, 2), groups=3, dilation=2, padding=2, padding_mode="reflect"),
    "depthwise": lambda: nn.Conv2d(6, 6, 3, groups=6, padding="same"),
    "pointwise": lambda: nn.Conv2d(6, 12, 1, bias=False),
}
every_layer = pytest.mark.parametrize("kind", LAYERS)


def case(kind: str) -> tuple[Artifact, list[Batch]]:
    """A layer, and inputs whose channels go together."""
    torch.manual_seed(0)
    layer = LAYERS[kind]().eval()
    shared = torch.randn(12, 1, 9, 9)
    inputs = shared + 0.3 * torch.randn(12, 6, 9, 9)
    inputs = inputs[:, :, 0, 0] if kind == "linear" else inputs
    return Artifact(layer), [Batch(part, torch.zeros(6), torch.arange(6)) for part in inputs.split(6)]


def wrong(artifact: Artifact, done: Artifact, batches: list[Batch]) -> Tensor:
    """The squared error of each output channel."""
    with torch.no_grad():
        differences = torch.cat([done.model(b.inputs) - artifact.model(b.inputs) for b in batches])
    return differences.transpose(0, 1).flatten(1).square().sum(1)


@every_layer
def test_moments_say_what_the_output_loses(kind: str) -> None:
    artifact, batches = case(kind)
    done = quantize(artifact, bits=3)
    exact, coded = (a.model.weight.detach() for a in (artifact, done))
    seen = moments(artifact.copy_model(), artifact.copy_model(), [""], batches)
    assert seen is not None
    shape = (len(seen.inputs), -1, seen.inputs.shape[1])
    errors = seen.errors(exact.reshape(shape), coded.reshape(shape)).flatten()
    torch.testing.assert_close(errors, wrong(artifact, done, batches), rtol=1e-3, atol=1e-4)
    assert not seen.drift.any()


def test_moments_of_a_layer_whose_inputs_have_changed() -> None:
    torch.manual_seed(1)
    exact = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    coded = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    rows = torch.randn(20, 4)
    seen = moments(exact, coded, ["2"], [Batch(rows, rows, rows)])
    assert seen is not None
    z, x = exact[1](exact[0](rows)), coded[1](coded[0](rows))
    w, v = exact[2].weight, coded[2].weight
    expected = (z @ w.T - x @ v.T).square().sum(0) - ((z - x) @ w.T).square().sum(0)
    torch.testing.assert_close(seen.errors(w[None], v[None])[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("linear", {"bits": 2}),
        ("conv", {"bits": 4, "symmetric": True}),
        ("grouped", {"bits": 3, "granularity": "group"}),
        ("depthwise", {"bits": 3}),
        ("pointwise", {"bits": 4, "scale": "mse"}),
    ],
)
def test_no_output_is_worse_than_with_nearest(kind: str, settings: dict[str, object]) -> None:
    artifact, batches = case(kind)
    options = {"scale": "max", "group_size": 4, **settings}
    nearest = wrong(artifact, quantize(artifact, rounding="nearest", **options), batches)
    learned = quantize(artifact, batches, rounding="adaround", **options)
    errors = wrong(artifact, learned, batches)
    assert (errors <= nearest * 1.0001).all()
    if kind != "depthwise":
        assert errors.sum() < 0.9 * nearest.sum()


def test_it_comes_near_the_best_of_all_roundings() -> None:
    artifact, batches = case("linear")
    form = quantize(artifact, bits=3, scale="max").stored["weight"]
    weight, scales = artifact.model.weight.detach(), form.each(form.scales)
    seen = moments(artifact.copy_model(), artifact.copy_model(), [""], batches)
    low, high = form.limits()
    best = torch.full((5,), float("inf"))
    for up in product((0.0, 1.0), repeat=6):
        steps = ((weight / scales).floor() + torch.tensor(up)).clamp(low, high)
        best = best.minimum(seen.errors(weight[None], (steps * scales)[None])[0])
    nearest = wrong(artifact, quantize(artifact, bits=3, scale="max"), batches)
    learned = wrong(artifact, quantize(artifact, batches, bits=3, scale="max", rounding="adaround"), batches)
    assert best.sum() <= learned.sum() * 1.0001
    assert learned.sum() - best.sum() < 0.2 * (nearest.sum() - best.sum())


def test_zeros_stay_zero() -> None:
    artifact, batches = case("conv")
    weight = artifact.model.weight.data
    weight[weight.abs() < weight.abs().median()] = 0
    done = quantize(artifact, batches, bits=3)
    assert (done.model.weight[weight == 0] == 0).all()


def test_a_network_errs_less_and_to_the_same_bits() -> None:
    artifact, batches = nets.artifact(), nets.calibration()
    state = torch.get_rng_state()
    layers = ["point", "kernel", "tied"]
    learned = quantize(artifact, batches, bits=3, layers=layers)
    assert torch.equal(state, torch.get_rng_state())
    nearest = quantize(artifact, bits=3, layers=layers)
    assert wrong(artifact, learned, batches).sum() < 0.7 * wrong(artifact, nearest, batches).sum()
    assert quantize(artifact, batches, bits=3, layers=layers).to_bytes() == learned.to_bytes()
    assert learned.model.tied.weight is learned.model.tied_too.weight


def test_a_transposed_convolution_is_rounded_to_nearest(caplog: pytest.LogCaptureFixture) -> None:
    artifact, batches = nets.artifact(), nets.calibration()
    with caplog.at_level("INFO", "distill.compress.quantize"):
        learned = quantize(artifact, batches, bits=3, layers=["up"])
    assert "rounded to nearest, as no convolution or linear layer uses them: up.weight" in caplog.text
    assert learned.to_bytes() == quantize(artifact, bits=3, scale="mse", layers=["up"]).to_bytes()
