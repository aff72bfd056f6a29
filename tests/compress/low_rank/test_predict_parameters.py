"""Rows of a weight predicted from others: the paper's regression, its cost, and what training and files keep."""

import json
import math

import pytest
import torch
from torch import Tensor, nn

from distill.artifact import Artifact, open_artifact
from distill.artifact.straight_through import finalize, trainable
from distill.batch import Batch
from distill.compress.low_rank._dictionaries import (
    dictionary,
    kept_first,
    predictions,
    rows_in_order,
    squared_exponential,
    units,
)
from distill.compress.low_rank._error_weighting import DAMPING, ErrorWeights, TracedLayer, trace_layers
from distill.compress.low_rank.predict_parameters import PredictedLayer, Predictions, predict_parameters
from distill.models.cost import macs, params
from distill.models.surgery import deployable
from tests.compress import nets


def predicted(model: nn.Module, shape: tuple[int, ...], **settings: object) -> Artifact:
    settings = {"weighting": "none", **settings}
    return predict_parameters(Artifact(model.eval()), nets.anything, nets.calibration(*shape), **settings)


def smooth(outputs: int, height: int, width: int) -> Tensor:
    """Weights that vary slowly over an image: a few cosines, (outputs, height * width)."""
    torch.manual_seed(0)
    y, x = torch.arange(height)[:, None] / height, torch.arange(width) / width
    waves = torch.stack([torch.cos(math.pi * (a * y + b * x)) for a in range(3) for b in range(3)])
    return torch.einsum("ow,whv->ohv", torch.randn(outputs, 9), waves).flatten(1)


def test_the_kernel_is_the_papers_squared_exponential_of_distances_in_pixels() -> None:
    kernel = squared_exponential((2, 3, 5), 1.5)
    places = [(c, y, x) for c in range(2) for y in range(3) for x in range(5)]
    for i, (c, y, x) in enumerate(places):
        for j, (d, v, u) in enumerate(places):
            expected = math.exp(-((y - v) ** 2 + (x - u) ** 2) / (2 * 1.5**2)) if c == d else 0.0
            assert float(kernel[i, j]) == pytest.approx(expected, abs=1e-15)


def test_predictions_are_those_of_scikit_learns_kernel_ridge_regression() -> None:
    """The paper predicts each weight from the kept ones by ridge regression; here by another library."""
    from sklearn.kernel_ridge import KernelRidge

    kept, values = torch.tensor([7, 0, 12, 19]), torch.randn(4, 3).double()
    kernel = squared_exponential((1, 4, 5), 1.3)
    order = rows_in_order(20, kept).argsort()
    weight = dictionary(predictions(kernel, kept, 0.05), order) @ values
    ridge = KernelRidge(alpha=0.05, kernel="precomputed").fit(kernel[kept][:, kept].numpy(), values.numpy())
    expected = torch.from_numpy(ridge.predict(kernel[:, kept].numpy()))
    rest = [place for place in range(20) if place not in kept.tolist()]
    torch.testing.assert_close(weight[rest], expected[rest])
    assert torch.equal(weight[kept], values)


def test_rows_are_kept_where_the_kernel_predicts_them_least() -> None:
    """The variance of a Gaussian process after each observation, by the textbook's formula."""
    kernel, importance = squared_exponential((1, 4, 4), 1.0), torch.rand(16).double() + 0.1
    order = kept_first(kernel, importance).tolist()
    assert sorted(order) == list(range(16))
    for done in range(6):
        known = order[:done]
        explained = kernel[:, known] @ torch.linalg.inv(kernel[known][:, known]) @ kernel[known]
        left = (kernel - explained).diagonal() * importance
        assert order[done] == int(left.argmax())


def test_rows_that_follow_from_others_are_not_kept() -> None:
    factors = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)).double()
    assert len(kept_first(factors @ factors.T, torch.ones(12).double())) == 5


def test_smooth_weights_are_predicted_from_few_and_rough_ones_are_not() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12 * 9, 30))
    model[1].weight.data = smooth(30, 12, 9)
    done = predicted(model, (1, 12, 9), max_error=0.05)
    (spec,) = done.plans[0].layers.values()
    assert spec["grid"] == [1, 12, 9]
    assert len(spec["locations"]) <= 45  # of 108
    single_pixels = torch.eye(108).view(108, 1, 12, 9)
    lost = (done.model(single_pixels) - model(single_pixels)).detach().norm() / model[1].weight.detach().norm()
    assert 0 < lost <= 0.0501
    model[1].weight.data = torch.randn(30, 108)
    assert not predicted(model, (1, 12, 9), max_error=0.05).plans


@pytest.mark.parametrize(("ridge", "tolerance"), [(0.0, 0.01), (1e-4, 0.25)])
@pytest.mark.parametrize("kernel", ["spatial", "covariance"])
def test_sizes_are_chosen_by_the_error_that_the_layer_then_has(kernel: str, ridge: float, tolerance: float) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(108, 30)
    linear.weight.data = smooth(30, 12, 9) + 0.3 * torch.randn(30, 108)
    factors = torch.randn(108, 108).double()
    traced, moments = TracedLayer(linear, (108,), (30,), (1, 12, 9)), ErrorWeights(inputs=factors @ factors.T)
    damped = moments.inputs + DAMPING * moments.inputs.diagonal().mean() * torch.eye(108).double()
    root = torch.linalg.cholesky(damped).T
    predictions = Predictions(traced, moments, [kernel], ridge)
    for option in predictions.options("size")[::8]:
        layer = PredictedLayer(linear, option.spec)
        with torch.no_grad():
            predictions.fill(layer, option.spec)
        lost = (layer(torch.eye(108)) - linear(torch.eye(108))).detach().double()
        error = (root @ lost).square().sum() / (root @ linear.weight.detach().double().T).square().sum()
        assert float(error) == pytest.approx(option.error, rel=tolerance)


def test_what_varies_together_on_images_is_predicted_exactly() -> None:
    """Inputs that are sums of 4 others: rows of 4 inputs are enough for them, whatever the weight is."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 20))
    rows = torch.randn(256, 4) @ torch.randn(4, 24)
    batches = [Batch(rows, torch.zeros(256), torch.arange(256))]
    done = predict_parameters(
        Artifact(model.eval()), nets.anything, batches, max_error=0.05, weighting="inputs", ridge=0.0
    )
    (spec,) = done.plans[0].layers.values()
    assert spec["ranks"][0] <= 5
    assert "grid" not in spec
    torch.testing.assert_close(done.model(rows), model(rows), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    "geometry",
    [{}, {"stride": (2, 3), "padding": (1, 2)}, {"dilation": (2, 1), "bias": False}, {"padding": "same"}],
    ids=str,
)
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("place", [{}, {"grid": [4, 3, 5], "length": 1.0, "ridge": 1e-3}], ids=["stored", "spatial"])
def test_it_computes_with_the_product_of_dictionary_and_kept_rows(
    geometry: dict[str, object], dense: bool, place: dict[str, object]
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, (3, 5), **geometry)
    kept = torch.randperm(60)[:8]
    layer = PredictedLayer(conv, {"ranks": [8], "locations": kept.tolist(), "dense": dense, **place})
    values = torch.randn(6, 8)
    with torch.no_grad():
        if not place:
            layer.predicted.normal_()
            layer.units.uniform_(1, 2)
        layer.kept.copy_(values * layer.units)
        conv.weight.copy_((dictionary(layer.predicted, layer.order) @ values.T).T.view_as(conv.weight))
    images = torch.randn(2, 4, 9, 12)
    expected = conv(images)
    torch.testing.assert_close(layer(images), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(deployable(layer)(images), expected, rtol=1e-4, atol=1e-4)
    assert len(list(deployable(layer).children())) == (0 if dense else 2)


@pytest.mark.parametrize("kernel", ["spatial", "covariance"])
def test_its_cost_is_counted_as_it_is_stored_and_runs(kernel: str) -> None:
    """A spatial dictionary costs its plan's few bytes; one from activations all of its values."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 40, 5, padding=2), nn.ReLU())
    artifact = Artifact(model.eval(), network={"name": "unused"})
    images = nets.calibration(8, 10, 9)
    done = predict_parameters(artifact, nets.anything, images, max_params=0.5, kernel=kernel, weighting="inputs")
    (spec,) = done.plans[0].layers.values()
    (rank,) = spec["ranks"]
    stored = 0 if kernel == "spatial" else rank * (200 - rank + 1)
    assert params(done.model) == 40 * rank + 40
    assert params(done.model) + stored <= 0.5 * params(model)
    plan = len(json.dumps(spec))
    assert 4 * (params(done.model) + stored) < done.nbytes() < 4 * (params(done.model) + stored) + 2 * plan + 1000
    run = macs(deployable(done.model), torch.randn(1, 8, 10, 9))
    assert run == min(rank * 240, 8000) * 90


def test_fine_tuning_moves_the_kept_rows_and_never_the_dictionary(tmp_path: pytest.TempPathFactory) -> None:
    done = predict_parameters(nets.artifact(), nets.anything, nets.calibration(), max_error=0.9)
    layers = done.plans[0].layers
    assert {"grid" in spec for spec in layers.values()} == {True, False}
    learned = finalize(done, nets.train(trainable(done)))
    learned.save(tmp_path / "student.safetensors")
    loaded = open_artifact(tmp_path / "student.safetensors", allow=nets.ALLOW).model
    for path in layers:
        before, after, read = (one.get_submodule(path) for one in (done.model, learned.model, loaded))
        assert torch.equal(before.predicted, after.predicted)
        assert torch.equal(before.predicted, read.predicted)
        assert not torch.equal(before.kept, after.kept)
        assert torch.equal(after.kept, read.kept)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_in_its_units_a_step_moves_the_weight_no_farther_than_that_of_a_dense_layer(scale: float) -> None:
    """A step along the gradient moves W by U U^T of it: of that no singular value is above 1."""
    torch.manual_seed(0)
    predicted = scale * torch.randn(40, 12).double()
    order = rows_in_order(52, torch.arange(12)).argsort()
    whole = dictionary(predicted, order) / units(predicted)
    assert 0.2 < float(torch.linalg.svdvals(whole)[0]) <= 1 + 1e-12


def test_linear_layers_know_the_maps_that_are_flattened_into_them() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 3 * 5, 20), nn.ReLU(), nn.Linear(20, 4)
    )
    layers = {path: model.get_submodule(path) for path in ("0", "3", "5")}
    traced = trace_layers(model, layers, torch.randn(1, 2, 8, 12))
    assert {path: one.maps for path, one in traced.items()} == {"0": (), "3": (6, 3, 5), "5": ()}


def test_layers_without_anything_to_compare_inputs_by_stay(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 12))
    with caplog.at_level("INFO"):
        assert not predicted(model, (16,), max_error=0.9).plans
    assert "2 (inputs without places or images to compare them by)" in " ".join(caplog.text.split())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"locations": [0, 0]}, "2 kept rows of 12"),
        ({"locations": list(range(12))}, "12 kept rows of 12"),
        ({"locations": [3, 12]}, "kept rows that are not from 0 to 11"),
        ({"grid": [1, 3, 5]}, r"a grid of \[1, 3, 5\] for 12 inputs"),
    ],
)
def test_a_plan_for_another_layer_is_refused(changed: dict[str, object], message: str) -> None:
    spec = {"ranks": [2], "locations": [1, 5], "dense": True, "grid": [1, 3, 4], "length": 1.0, "ridge": 1e-3}
    with pytest.raises(ValueError, match=message):
        PredictedLayer(nn.Linear(12, 9), spec | changed)
