"""Before int8 rounds anything: batch norms are folded, channels equalised; afterwards biases are corrected."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.batch import Batch
from distill.compress._equalize import correct_biases, equalize, pairs
from distill.compress._folding import fold
from distill.compress.low_rank.svd import svd
from distill.compress.low_rank.tensor_train import tensor_train
from distill.compress.quantization.int8 import int8
from distill.compress.quantization.quantize import quantize
from distill.models.tracing import trace
from tests.compress import nets
from tests.compress.quantization.networks import SETTINGS, images, never, trained


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


class Recurrent(nn.Module):
    """A layer that runs several times, on values of very different means."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for step in range(4):
            x = self.again(x + step).relu()
        return self.last(x.mean((2, 3)))


def test_bias_correction_leaves_layers_that_run_several_times() -> None:
    torch.manual_seed(0)
    artifact, batches = Artifact(Recurrent().eval()), [Batch(images(), torch.zeros(4), torch.arange(4))]
    for done in (
        int8(artifact, batches, never, bits=8, bias_correction=True).model,
        quantize(artifact, batches, bias_correction=True).model,
    ):
        assert torch.equal(done.again.bias, artifact.model.again.bias)
        assert not torch.equal(done.last.bias, artifact.model.last.bias)
        with torch.no_grad():
            exact, found = artifact.model(images()), done(images())
        assert (found - exact).norm() < 0.02 * exact.norm()
