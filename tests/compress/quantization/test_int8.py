"""Places, gate, training and refusals of int8; its ranges are in test_ranges, its files in tests/export."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from distill.artifact import Artifact, open_artifact
from distill.artifact.straight_through import finalize, trainable
from distill.batch import Batch
from distill.compress._places import Places
from distill.compress.encode import encode
from distill.compress.low_rank.svd import svd
from distill.compress.pruning.prune import prune
from distill.compress.quantization.int8 import int8
from distill.compress.quantization.quantize import quantize
from distill.errors import ExportError, RecipeError, TrainingError
from distill.models import fake_quantize
from distill.models.fake_quantize import QuantizationParams
from distill.models.tracing import trace
from tests.compress import nets
from tests.compress.quantization.networks import batches, images, joined, never, trained


def test_every_value_is_rounded_once_where_integers_are_read_or_made() -> None:
    done = int8(joined(), batches(), never)
    plan = done.plans[-1].layers
    rounded = {(path, end) for path, spec in plan.items() for end in ("input", "output") if end in spec}
    assert rounded == {
        ("stem", "input"),
        ("clip", "output"),  # read through the pooling, by both
        ("one", "output"),
        ("two", "output"),
        ("block", "input"),
        ("block", "output"),
        ("block.relu", "output"),
        ("head", "input"),
    }
    assert plan["block.relu"]["output"] == plan["block"]["output"]  # joined channels lie on one grid
    assert plan["one"]["output"] != plan["two"]["output"]
    assert {path for path, spec in plan.items() if "bits" in spec} == {"stem", "one", "two", "block.conv", "head"}


@pytest.mark.parametrize("name", ["shufflenet_v2", "squeezenet1_1", "wrn_16_2"])
def test_what_it_computes_stays_near(name: str) -> None:
    artifact = trained(name)
    with torch.no_grad():
        done = int8(artifact, batches(16), never).model(images())
        exact = artifact.model(images())
    assert 0 < (done - exact).norm() / exact.norm() < 0.1


def test_zeros_of_pruning_stay_zeros_also_in_training() -> None:
    """Folding multiplies them, and the codes of int8 have a zero."""
    sparse = prune(joined(), sparsity=0.6)
    done = encode(int8(sparse, batches(), never))
    wanted = {name: form.decode() == 0 for name, form in sparse.stored.items()}
    assert sum(int(zeros.sum()) for zeros in wanted.values()) > 50
    weights = dict(done.model.named_parameters())
    assert all(bool((weights[name] == 0)[zeros].all()) for name, zeros in wanted.items())
    assert done.nbytes() < encode(int8(joined(), batches(), never)).nbytes()
    tuned = int8(sparse, batches(), never)
    model = trainable(tuned)
    for parameter in model.parameters():
        parameter.data += 0.5
    moved = dict(finalize(tuned, model).model.named_parameters())
    assert all(bool((moved[name] == 0)[zeros].all()) for name, zeros in wanted.items())
    assert any(not torch.equal(moved[name], weights[name]) for name in wanted)


def test_functions_without_modules_are_seen_too() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x += 1
            y = nn.functional.relu_(self.conv(x))
            y *= 2
            return y if y.sum() > 0 else -y  # no tracer could follow this

    flow = trace(Functional(), images())
    assert [op.name for op in flow.ops][:4] == ["add", "conv2d", "relu", "mul"]
    assert [call.path for call in flow.calls] == ["conv", ""]
    assert len({value for op in flow.ops for value in op.outputs}) == len(flow.ops)  # in place, yet another value


def test_layers_that_run_twice_are_rounded_at_no_single_end() -> None:
    conv = nn.Conv2d(1, 1, 1)
    places = Places(trace(nn.Sequential(conv, nn.ReLU(), conv), images()), ["0"]).find()
    assert [spot.path for place in places for spots in place.spots for spot in spots] == ["1"]


def test_training_moves_weights_on_their_grids_and_leaves_ranges() -> None:
    artifact = int8(nets.artifact(), nets.calibration(), never)
    model = trainable(artifact)
    assert torch.equal(model.eval()(nets.images()), artifact.model(nets.images()))
    done = finalize(artifact, nets.train(model, steps=8))
    assert nets.loss(done.model) < nets.loss(artifact.model)
    assert done.plans == artifact.plans
    fake_quantize.write_codes(done.copy_model())  # all weights still are codes
    assert any(not torch.equal(done.stored[name].codes, form.codes) for name, form in artifact.stored.items())


def test_weights_that_left_their_codes_are_not_written() -> None:
    model = int8(nets.artifact(), nets.calibration(), never).copy_model()
    with torch.no_grad():
        model.point.weight.mul_(1 + torch.rand(24, 12, 1, 1))
    with pytest.raises(ExportError, match="the weight of 'point' was changed after 'int8'"):
        fake_quantize.write_codes(model)


class TestGate:
    @staticmethod
    def count(model: nn.Module) -> float:
        """Loses a point with every layer on integers."""
        return -0.01 * sum(hasattr(module, fake_quantize.MARK) for module in model.modules())

    def test_it_keeps_as_few_layers_in_float_as_do(self) -> None:
        done = int8(joined(), batches(), self.count, max_drop=0.035)
        assert self.count(done.model) == pytest.approx(-0.03)

    def test_the_most_sensitive_ones(self) -> None:
        artifact = joined()
        with torch.no_grad():  # one value that takes all of the range
            artifact.model.two.weight[0, 0] = 40.0
        done = int8(artifact, batches(), lambda model: -float(hasattr(model.two, fake_quantize.MARK)), max_drop=0.5)
        assert {f"{path}.weight" for path in ("stem", "one", "block.conv", "head")} == set(done.stored)

    def test_nothing_stays_in_float_where_all_is_well(self) -> None:
        assert len(int8(joined(), batches(), lambda model: 0.9, max_drop=0.0).stored) == 5

    def test_it_refuses_what_too_few_layers_would_be_left_of(self) -> None:
        with pytest.raises(
            RecipeError, match=r"-0\.0300 with half of the layers in float32, but max_drop wants -0\.0100"
        ):
            int8(joined(), batches(), self.count, max_drop=0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 4}, "int8 has bits 7 and 8"),
        ({"ranges": "max"}, "ranges minmax, percentile, entropy, mse, not 7 and max"),
        ({"percentile": 0.0}, "0 < percentile <= 100"),
        ({"max_drop": -0.1}, "max_drop >= 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    unchecked = getattr(int8, "__wrapped__", int8)  # test runs check types first
    with pytest.raises(RecipeError, match=message):
        unchecked(joined(), batches(), never, **settings)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([], "but there are none"),
        ([torch.zeros(0, 1, 8, 8)], "but there are none"),
        ([torch.zeros(2, 3, 8, 8)], "the network cannot read calibration images of 3x8x8"),
        ([torch.full((2, 1, 8, 8), torch.nan)], "calibration images hold values that are not finite"),
    ],
)
def test_images_that_calibrate_nothing_are_refused(batch: list[Tensor], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        int8(joined(), [Batch(inputs, None, torch.arange(len(inputs))) for inputs in batch], never)


def test_activations_that_are_not_finite_are_refused() -> None:
    artifact = joined()
    artifact.model.two.bias.data[0] = torch.inf
    with pytest.raises(TrainingError, match="an activation on calibration images is not finite"):
        int8(artifact, batches(), never)


def test_weights_are_rounded_once() -> None:
    with pytest.raises(RecipeError, match="int8 rounds weights itself, but those of 'point' are codes already"):
        int8(quantize(nets.artifact(), layers=["point"]), nets.calibration(), never)


@pytest.mark.parametrize(
    "after",
    [
        lambda artifact: svd(artifact, nets.anything, nets.calibration(), max_error=0.5),
        quantize,
        lambda artifact: int8(artifact, nets.calibration(), never),
    ],
)
def test_only_encode_comes_after_it(after: Callable[[Artifact], Artifact]) -> None:
    artifact = int8(nets.artifact(), nets.calibration(), never)
    with pytest.raises(RecipeError, match="after 'int8' would take its weights off their codes"):
        after(artifact)


def test_encode_loses_nothing(tmp_path: pytest.TempPathFactory) -> None:
    artifact = int8(nets.artifact(), nets.calibration(), never)
    encoded = encode(artifact)
    assert encoded.save(tmp_path / "student.safetensors") < artifact.nbytes()
    loaded = open_artifact(tmp_path / "student.safetensors", allow=nets.ALLOW).model
    assert torch.equal(loaded(nets.images()), artifact.model(nets.images()))
    fake_quantize.write_codes(loaded)


def test_grids_hold_zero_and_round_to_nearest() -> None:
    grid = QuantizationParams.over(-1.0, 3.0)
    assert grid == (pytest.approx(4 / 255, rel=1e-5), 64)
    values = torch.linspace(-2, 4, 301)
    steps = (torch.arange(256) - grid.zero) * grid.scale
    nearest = steps[(values[:, None] - steps).abs().argmin(1)]
    torch.testing.assert_close(grid(values), nearest, rtol=0, atol=1e-6)
    assert grid(torch.zeros(1)) == 0
    assert QuantizationParams.over(0.0, 0.0)(torch.ones(3)).isfinite().all()
    assert QuantizationParams.over(2.0, 3.0).zero == 0
    assert QuantizationParams.over(-3.0, -2.0).zero == 255
