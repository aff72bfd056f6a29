"""TT-matrices of two cores: sums of Kronecker products, exact where the weight is one, the best where it is not."""

import pytest
import torch
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.compress import _layer_timing as _probe
from distill.compress.low_rank._error_weighting import ErrorWeights, TracedLayer
from distill.compress.low_rank.tt_matrix import Products, TTMatrix, tt_matrix
from distill.export import onnx_file
from distill.models.cost import macs, params
from tests.compress import nets


def sum_of_products(rank: int, slow: tuple[int, int], fast: tuple[int, int]) -> Tensor:
    torch.manual_seed(rank)
    return sum(torch.kron(torch.randn(slow), torch.randn(fast)) for _ in range(rank))


def made_of(layer: nn.Module, shape: tuple[int, ...], **spec: object) -> tuple[TTMatrix, float]:
    """The layer as one option, and the error that the option says."""
    products = Products(TracedLayer(layer, shape, (layer.weight.shape[0], *shape[1:])), ErrorWeights())
    option = next(option for option in products.options("size") if dict(option.spec) == spec)
    made = TTMatrix(layer, option.spec)
    with torch.no_grad():
        products.fill(made, option.spec)
    return made, option.error


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_a_sum_of_kronecker_products_is_replaced_exactly(rank: int) -> None:
    conv, linear = nn.Conv2d(12, 20, 1), nn.Linear(12, 20, bias=False)
    conv.weight.data = sum_of_products(rank, (5, 3), (4, 4))[:, :, None, None]
    linear.weight.data = conv.weight.data[:, :, 0, 0]
    for layer, shape in ((conv, (12, 5, 7)), (linear, (12,))):
        made, error = made_of(layer, shape, inputs=[3, 4], outputs=[5, 4], ranks=[rank])
        images = torch.randn(2, *shape)
        assert error < 1e-12
        torch.testing.assert_close(made(images), layer(images), rtol=1e-4, atol=1e-5)
        assert params(made) - params(layer) == rank * (5 * 3 + 4 * 4) - 12 * 20


def test_the_error_is_that_of_the_weight_it_stands_for_and_the_least_of_its_rank() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(12, 20, bias=False)
    made, error = made_of(layer, (12,), inputs=[4, 3], outputs=[5, 4], ranks=[2])
    stands_for = made(torch.eye(12)).T.detach()
    lost = float((stands_for - layer.weight.detach()).square().sum() / layer.weight.detach().square().sum())
    assert lost == pytest.approx(error, rel=1e-4)
    assert error > 0.1
    for _ in range(20):  # no neighbour is better
        with torch.no_grad():
            moved = [p + 1e-2 * torch.randn_like(p) for p in (made.slow, made.fast)]
        near = torch.func.functional_call(made, {"slow": moved[0], "fast": moved[1]}, torch.eye(12)).T
        assert float((near - layer.weight).detach().square().sum() / layer.weight.detach().square().sum()) > error


def test_what_images_never_show_is_given_up_first() -> None:
    """Inputs that are zero need no weights: two products then do what four do where all inputs move."""
    torch.manual_seed(0)
    layer = nn.Linear(16, 16, bias=False)
    seen = torch.diag(torch.tensor([1.0] * 2 + [1e-6] * 14).double())
    for error_weights in (ErrorWeights(), ErrorWeights(inputs=seen)):
        options = Products(TracedLayer(layer, (16,), (16,)), error_weights).options("size")
        errors = {o.spec["ranks"][0]: o.error for o in options if o.spec["inputs"] == o.spec["outputs"] == [4, 4]}
        assert (errors[4] < 0.02) == (error_weights.inputs is not None)


@pytest.mark.parametrize("stride", [2, (1, 3)])
def test_strides_skip_pixels(stride: int | tuple[int, int]) -> None:
    conv = nn.Conv2d(12, 20, 1, stride=stride)
    conv.weight.data = sum_of_products(2, (5, 3), (4, 4))[:, :, None, None]
    made, _ = made_of(conv, (12, 7, 8), inputs=[3, 4], outputs=[5, 4], ranks=[2])
    images = torch.randn(2, 12, 7, 8)
    torch.testing.assert_close(made(images), conv(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", ["max_params", "max_macs"])
def test_budgets_are_counted_as_they_are(count: str) -> None:
    model = nn.Sequential(nn.Conv2d(32, 64, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 32))
    images = torch.randn(1, 32, 6, 5)
    done = tt_matrix(Artifact(model.eval()), nets.anything, nets.calibration(32, 6, 5), **{count: 0.6})
    counted = {"max_params": params, "max_macs": lambda model: macs(model, images)}[count]
    assert counted(done.model) / counted(model) <= 0.6
    assert {"0", "4"} & set(done.plans[0].layers)


def test_its_file_runs_for_any_batch_and_moves_nothing() -> None:
    conv = nn.Conv2d(16, 24, 1)
    made, _ = made_of(conv, (16, 6, 5), inputs=[4, 4], outputs=[6, 4], ranks=[2])
    file = onnx_file.serialize(nn.Sequential(made), torch.randn(2, 16, 6, 5))
    images = torch.randn(3, 16, 6, 5)
    torch.testing.assert_close(
        onnx_file.answer(onnx_file.session(file), images), made(images).detach(), rtol=1e-4, atol=1e-5
    )
    assert b"Transpose" not in file
    assert all(seconds > 0 for seconds in _probe.seconds(made, (16, 6, 5)) or [0])


def test_other_layers_stay_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Conv2d(16, 16, 3), nn.Conv2d(16, 13, 1), nn.Conv2d(13, 16, 1), nn.Conv2d(16, 64, 1))
    with caplog.at_level("INFO"):
        done = tt_matrix(Artifact(model.eval()), nets.anything, nets.calibration(16, 9, 9), max_error=0.9)
    assert list(done.plans[0].layers) == ["3"]
    assert "1 (no 1x1 convolution), 2 (a prime number of channels)" in " ".join(caplog.text.split())
