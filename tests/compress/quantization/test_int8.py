"""Folding, equalisation, places and gates of INT8; its ranges are in test_ranges, its files in tests/export."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from distill.artifact import Artifact, open_artifact
from distill.artifact.straight_through import finalize, trainable
from distill.batch import Batch
from distill.compress._equalize import correct_biases, equalize, pairs
from distill.compress._folding import fold
from distill.compress._places import Places
from distill.compress.encode import encode
from distill.compress.low_rank.svd import svd
from distill.compress.low_rank.tensor_train import tensor_train
from distill.compress.quantization.int8 import int8
from distill.compress.quantization.quantize import quantize
from distill.errors import ExportError, RecipeError, TrainingError
from distill.models import fake_quantize
from distill.models.fake_quantize import QuantizationParams
from distill.models.tracing import trace
from students import student
from tests.compress import nets

SETTINGS = {
    "resnet20": {},
    "wrn_16_2": {},
    "mobilenet_v2": {"width": 0.25, "small_images": True},
    "shufflenet_v2": {"width": 0.5, "small_images": True},
    "squeezenet1_1": {"small_images": True},
}


def never(model: nn.Module) -> float:
    raise AssertionError("nobody asked")


def trained(name: str) -> Artifact:
    """A network with batch statistics that say something."""
    torch.manual_seed(0)
    model = student.find(name)(num_classes=10, channels=1, **SETTINGS[name])
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 1, 16, 16) + 0.5)
    return Artifact(model.eval(), network={"name": name})


def images(size: int = 16) -> Tensor:
    return torch.randn(4, 1, size, size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", SETTINGS)
def test_folding_changes_nothing_but_the_layers(name: str) -> None:
    artifact = trained(name)
    plain = fold(artifact, None, [images()], even_out=False)
    with torch.no_grad():
        torch.testing.assert_close(plain.model(images()), artifact.model(images()), rtol=1e-4, atol=1e-5)
    left = sum(isinstance(module, nn.BatchNorm2d) for module in plain.model.modules())
    assert left == (6 if name == "wrn_16_2" else 0)  # those that come before their convolution


def test_batch_norms_stay_where_somebody_else_reads_what_they_read() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.norm(x) + x

    assert fold(Artifact(Forked().eval()), None, [images()], even_out=False).plan == {}


def test_factors_become_plain_layers() -> None:
    given = nets.anything, nets.calibration()
    factorised = svd(nets.artifact(), *given, max_error=0.6, layers=["kernel"])
    factorised = tensor_train(factorised, *given, max_error=0.6, layers=["point", "head"])
    done = int8(factorised, nets.calibration(), never)
    assert any(hasattr(module, "deploy") for module in factorised.model.modules())
    assert not any(hasattr(module, "deploy") for module in done.model.modules())
    assert {path.split(".")[0] for path in done.stored} == {"stem", "depthwise", "point", "kernel", "head"}


class Chain(nn.Module):
    """Dense, depthwise, pointwise, with channels of very different size between them."""

    def __init__(self, clip: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.dense, self.depth = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
        self.point, self.clip, self.other = nn.Conv2d(8, 4, 1), clip(), clip()
        with torch.no_grad():
            self.dense.weight.mul_(torch.logspace(-2, 2, 8)[:, None, None, None])
            self.depth.weight.mul_(torch.logspace(1, -2, 8)[:, None, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return self.point(self.other(self.depth(self.clip(self.dense(x))))).mean((2, 3))


def peaks(weight: Tensor) -> Tensor:
    return weight.detach().flatten(1).abs().amax(1)


def test_equalisation_keeps_the_function_and_gives_both_ends_of_a_channel_one_range() -> None:
    torch.manual_seed(0)
    model = Chain()
    before, spread = model(images()), peaks(model.depth.weight).max() / peaks(model.depth.weight).min()
    found = pairs(model, trace(model, images()), ["dense", "depth", "point"])
    assert [(pair.first, pair.second) for pair in found] == [("dense", "depth"), ("depth", "point")]
    first = model.dense.weight.clone(), model.depth.weight.clone()
    equalize(model, found)
    torch.testing.assert_close(model(images()), before, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(peaks(model.dense.weight), peaks(model.depth.weight), rtol=3e-3, atol=0)
    torch.testing.assert_close(peaks(model.depth.weight), peaks(model.point.weight.transpose(0, 1)), rtol=3e-3, atol=0)
    assert peaks(model.depth.weight).max() / peaks(model.depth.weight).min() < spread / 10
    assert not torch.equal(first[0], model.dense.weight)


def test_one_pair_has_equation_11s_scale() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, 4.0, 9.0]).reshape(3, 1, 1, 1))
        model[2].weight.copy_(torch.tensor([[9.0, 1.0, 1.0], [3.0, 0.5, 1.0]]).reshape(2, 3, 1, 1))
    equalize(model, pairs(model, trace(model, images()), ["0", "2"]))
    assert peaks(model[0].weight).tolist() == pytest.approx([3.0, 2.0, 3.0])  # the square root of both ranges' product
    assert peaks(model[2].weight.transpose(0, 1)).tolist() == pytest.approx([3.0, 2.0, 3.0])


@pytest.mark.parametrize("reaches", [False, True])
def test_equalisation_makes_a_relu6_a_relu_that_cuts_nothing_off(reaches: bool) -> None:
    torch.manual_seed(0)
    model = Chain(nn.ReLU6).eval()
    model.dense.weight.data.clamp_(-0.1, 0.1)
    if reaches:
        model.dense.weight.data[0] = 100.0
    plain = fold(Artifact(model), None, [images()], even_out=True)
    assert isinstance(plain.model.clip, nn.ReLU6 if reaches else nn.ReLU)
    with torch.no_grad():
        torch.testing.assert_close(plain.model(images()), model(images()), rtol=1e-4, atol=1e-5)


def test_other_functions_are_no_bridge() -> None:
    model = Chain(nn.Tanh)
    assert pairs(model, trace(model, images()), ["dense", "depth", "point"]) == []


def test_equalisation_helps_where_channels_differ() -> None:
    torch.manual_seed(0)
    artifact, batches = Artifact(Chain().eval()), [Batch(images(), torch.zeros(4), torch.arange(4))]
    with torch.no_grad():
        errors = [
            float((int8(artifact, batches, never, equalize=even).model(images()) - artifact.model(images())).norm())
            for even in (False, True)
        ]
    assert errors[1] < errors[0] / 2


def test_bias_correction_gives_every_layer_its_mean_back() -> None:
    artifact = trained("resnet20")
    plain = fold(artifact, None, [images()], even_out=False)
    with torch.no_grad():
        shifted = artifact.with_model(int8(artifact, [Batch(images(), None, torch.arange(4))], never, bits=7).model)
        model = shifted.copy_model()
        correct_biases(model, plain.model, plain.layers, images())
        exact, before, after = (net(images()).mean(0) for net in (plain.model, shifted.model, model))
    torch.testing.assert_close(after, exact, rtol=1e-3, atol=1e-5)
    assert (before - exact).norm() > 10 * (after - exact).norm()


class Joined(nn.Module):
    """An addition, a split, joined channels, a shuffle, two poolings and two readers of one value."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.clip = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.block, self.head = Half(), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.clip(self.norm(self.stem(x))), 2)
        x = self.block(self.block_input(torch.relu(self.one(x) + self.two(x))))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))

    def block_input(self, x: Tensor) -> Tensor:
        return x


class Half(nn.Module):
    """One half of the channels passes, the other is convolved; then they are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, dim=1)
        x = torch.cat([kept, self.relu(self.conv(changed))], dim=1)
        return x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)


def joined() -> Artifact:
    torch.manual_seed(0)
    model = Joined()
    with torch.no_grad():
        model(torch.randn(8, 1, 8, 8))
    return Artifact(model.eval(), network={"name": f"{__name__}:Joined"})


def batches(size: int = 8) -> list[Batch]:
    return [Batch(images(size), torch.zeros(4), torch.arange(4))]


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
