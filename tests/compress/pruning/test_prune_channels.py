"""Channels removed for real: a network without its dead channels computes what it did, through every connection."""

import logging
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from distill.artifact import Artifact, open_artifact
from distill.batch import Batch
from distill.compress.low_rank.svd import svd
from distill.compress.pruning.prune_channels import prune_channels
from distill.compress.quantization.quantize import quantize
from distill.errors import RecipeError
from distill.export import onnx_file
from distill.models import cost
from distill.models.channels.groups import Widths
from distill.models.channels.propagation import Channels
from distill.models.taps import Taps
from students import student
from tests.compress import nets

SMALL = {"small_images": True}
NORMALISED: dict[str, dict[str, Any]] = {
    "resnet20": {},
    "resnet8x4": {"shortcut": "A"},
    "resnet18": SMALL,
    "wrn_16_2": {},
    "vgg8": {},
    "mobilenet_v2": {"width": 0.5, **SMALL},
    "shufflenet_v1": {"width": 0.5, **SMALL},
    "shufflenet_v2": {"width": 0.5, **SMALL},
    "kd_shufflenet_v2": {},
}
"""Networks all of whose channels go through batch normalisation."""


class Odd(nn.Module):
    """Squeeze and excitation, dense connections, halves that part and meet, filters with several outputs per input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1, padding_mode="reflect")
        self.squeeze, self.excite = nn.Conv2d(12, 8, 1), nn.Conv2d(8, 12, 1)
        self.dense = nn.Conv2d(12, 8, 3, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(20)
        self.twice = nn.Conv2d(20, 40, 3, stride=2, groups=20, padding=1)
        self.again = nn.Conv2d(40, 40, 1)
        self.twice.alike = self.again.alike = 2
        self.up = nn.ConvTranspose2d(40, 16, 3, stride=2, padding=1, output_padding=1)
        self.left, self.right = nn.Linear(8, 16), nn.Linear(8, 16, bias=False)
        self.rows = nn.Conv1d(16, 24, 3)
        self.head = nn.Linear(24 * 6, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.stem(inputs).relu_()
        x = x * self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()
        x = F.relu(self.norm(torch.cat([x, self.dense(x)], dim=1)))
        x = self.again(self.again(F.pad(self.twice(x), (0, 1, 1, 0))).relu())
        x = F.adaptive_avg_pool2d(F.interpolate(self.up(x), scale_factor=2), (8, 1)).squeeze(3)
        left, right = x.chunk(2, dim=1)
        x = self.left(left.transpose(1, 2)).transpose(1, 2) + self.right(right.transpose(1, 2)).transpose(1, 2)
        return self.head(F.max_pool1d(self.rows(x), 1).flatten(1))


def network(name: str, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    if name == "odd":
        return Odd()
    if name == "densenet":
        return torchvision.models.DenseNet(8, (2, 2), 16, num_classes=10)
    return student.find(name)(**{"num_classes": 10} | NORMALISED.get(name, {}) | settings)


@torch.no_grad()
def settled(model: nn.Module, size: int = 16) -> nn.Module:
    """With batch statistics of its own."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        model.train()(batches(size)[0].inputs)
    return model.eval()


def trained(name: str, **settings: Any) -> Artifact:
    """Not really, but every channel of a batch normalisation has a scale of its own."""
    model = network(name, **settings)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0.2, 0.3)
    return Artifact(settled(model), network={"name": name, "num_classes": 10, **NORMALISED.get(name, {}), **settings})


def batches(size: int = 16, channels: int = 3, count: int = 8) -> list[Batch]:
    images = torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1))
    return [Batch(images, torch.arange(count) % 10, torch.arange(count))]


def prune(artifact: Artifact, calibration: list[Batch] | None = None, **settings: Any) -> Artifact:
    return prune_channels(artifact, calibration or batches(), F.cross_entropy, **settings)


def widths(model: nn.Module) -> dict[str, int]:
    """Output channels, layer by layer."""
    return {
        path: layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    }


def assert_same(found: Tensor, expected: Tensor) -> None:
    spread = float((expected - expected.mean(0)).abs().max().detach())  # what does not depend on the image tells little
    assert spread > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * max(1, spread))


@pytest.mark.parametrize("name", NORMALISED)
def test_it_computes_what_the_whole_network_does_with_those_channels_at_zero(name: str) -> None:
    artifact, images = trained(name), batches()[0].inputs
    done = prune(artifact, ratio=0.6, scope="global", round_to=4, min_channels=4)
    for path, norm in artifact.model.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            kept = torch.isin(norm.weight, done.model.get_submodule(path).weight)
            norm.register_forward_hook(lambda _, __, output, kept=kept: output * kept[:, None, None])
    assert_same(done.model(images), artifact.model(images))
    before, after = widths(artifact.model), widths(done.model)
    assert sum(after.values()) < 0.9 * sum(before.values())
    assert after.popitem() == before.popitem()
    assert all(width == before[path] or width % 4 == 0 for path, width in after.items())


@torch.no_grad()
def kill_every_other_channel(model: nn.Module) -> None:
    """Filters, biases and normalisation are zero; sums keep it that way."""
    *layers, _ = (m for m in model.modules() if hasattr(m, "weight"))
    for layer in layers:
        weight = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
        dead = torch.arange(len(weight)) // getattr(layer, "alike", 1) % 2 == 1
        weight[dead] = 0
        if layer.bias is not None:
            layer.bias[dead] = 0


@pytest.mark.parametrize(
    ("name", "settings", "size"),
    [
        ("lenet5", {"channels": 3}, 28),
        ("lenet_300_100", {"channels": 3}, 28),
        ("squeezenet1_1", SMALL, 32),
        ("mobilenet_v1", {"width": 0.25, **SMALL}, 16),
        ("densenet", {}, 32),
        ("odd", {}, 16),
    ],
)
def test_dead_channels_go_first_and_nobody_misses_them(name: str, settings: dict[str, Any], size: int) -> None:
    model = network(name, **settings)
    kill_every_other_channel(model)
    artifact, calibration = Artifact(settled(model, size)), batches(size)
    done = prune(artifact, calibration, ratio=0.75, scope="layer", round_to=1, min_channels=1)
    assert_same(done.model(calibration[0].inputs), artifact.model(calibration[0].inputs))
    before, after = widths(artifact.model), widths(done.model)
    assert after.popitem() == before.popitem()
    for path, width in before.items():
        assert after[path] <= -(-3 * width // 4), path


@pytest.mark.parametrize(
    ("name", "budget", "scope"),
    [("resnet20", "max_macs", "global"), ("resnet8x4", "max_params", "layer")],
)
def test_a_budget_is_met_and_used(name: str, budget: str, scope: str) -> None:
    artifact, images = trained(name), batches()[0].inputs
    done = prune(artifact, scope=scope, **{budget: 0.5})
    whole = {"max_macs": cost.macs(artifact.model, images), "max_params": cost.params(artifact.model)}[budget]
    assert prune(artifact, scope=scope, **{budget: float(whole // 2)}).to_bytes() == done.to_bytes()
    costs = [
        cost.macs(model, images) if budget == "max_macs" else cost.params(model)
        for model in (artifact.model, done.model)
    ]
    assert 0.45 < costs[1] / costs[0] <= 0.5
    before = widths(artifact.model)
    assert all(after == before[path] or (after % 8 == 0 and after >= 8) for path, after in widths(done.model).items())


def test_a_budget_that_cannot_be_met_says_the_least_that_can() -> None:
    artifact = trained("resnet8x4")
    with pytest.raises(RecipeError, match=r"cannot meet max_macs=0\.01: .* 0\.\d\d\d of them is the least") as refusal:
        prune(artifact, max_macs=0.01)
    least = float(str(refusal.value).split()[-6])
    done = prune(artifact, max_macs=least + 0.001)
    assert set(widths(done.model).values()) == {8, 10}
    macs = [cost.macs(model, batches()[0].inputs) for model in (artifact.model, done.model)]
    assert round(macs[1] / macs[0], 3) == least


def test_it_is_saved_loaded_tapped_and_trained_like_any_network(tmp_path: Any) -> None:
    artifact, images = trained("shufflenet_v2"), batches()[0].inputs
    done = prune(artifact)
    done.save(tmp_path / "small.safetensors")
    loaded = open_artifact(tmp_path / "small.safetensors")
    assert torch.equal(loaded.model(images), done.model(images))
    assert loaded.to_bytes() == done.to_bytes()
    assert done.nbytes() < 0.6 * artifact.nbytes()
    logits, features = Taps(loaded.model.train(), artifact.model.stages)(images)
    assert all(feature.shape[1] % 8 == 0 for feature in features.values())
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in loaded.model.parameters())


def test_it_is_exported_like_any_network() -> None:
    images = batches()[0].inputs
    model = prune(trained("resnet8x4")).model
    found = onnx_file.answer(onnx_file.session(onnx_file.serialize(model, images), threads=1), images)
    np.testing.assert_allclose(found, model(images).detach().numpy(), rtol=1e-4, atol=1e-4)


def test_every_layer_keeps_the_same_part_in_scope_layer() -> None:
    artifact = trained("vgg8")
    after = widths(prune(artifact, ratio=0.25, scope="layer").model)
    assert list(after.values()) == [16, 32, 64, 128, 128, 10]


def plain(*widths: int, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs) if norm else nn.Identity(),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


FINE = {"round_to": 1, "min_channels": 1}


def test_magnitude_removes_the_filters_of_least_l1_norm() -> None:
    """Li et al.; across layers relative to the layer's mean."""
    model = plain(3, 4, 6)
    with torch.no_grad():
        for layer, norms in ((model[0], [4.0, 1, 3, 8]), (model[3], [10.0, 2, 30, 6, 5, 7])):
            layer.weight *= torch.tensor(norms)[:, None, None, None] / layer.weight.abs().sum((1, 2, 3), keepdim=True)
    done = prune(
        Artifact(model), ratio=0.6, saliency="magnitude", scope="global", **FINE
    )  # norms over means: 1, .25, .75, 2 and 1, .2, 3, .6, .5, .7
    assert torch.equal(done.model[0].weight, model[0].weight[[0, 2, 3]])
    assert torch.equal(done.model[3].weight, model[3].weight[[0, 2, 5]][:, [0, 2, 3]])
    assert torch.equal(done.model[8].weight, model[8].weight[:, [0, 2, 5]])


def test_bn_scale_removes_what_normalisation_scales_least() -> None:
    """Liu et al.: one threshold for all layers; signs do not matter."""
    model = plain(3, 4, 6, norm=True)
    model[1].weight.data = torch.tensor([0.5, -0.1, 0.2, -0.9])
    model[4].weight.data = torch.tensor([0.3, 0.05, -0.6, 0.15, 0.7, 0.01])
    done = prune(Artifact(model.eval()), ratio=0.6, saliency="bn_scale", scope="global", **FINE)
    assert done.model[1].weight.tolist() == pytest.approx([0.5, 0.2, -0.9])
    assert done.model[4].weight.tolist() == pytest.approx([0.3, -0.6, 0.7])
    with pytest.raises(RecipeError, match="saliency=bn_scale needs batch normalisation"):
        prune(Artifact(plain(3, 4, 6)), saliency="bn_scale")


def test_taylor_removes_what_changes_the_loss_least() -> None:
    """Molchanov et al., by central differences of a gate on each channel."""
    model = plain(3, 4, 6, norm=True)
    model(batches()[0].inputs)
    model = model.eval().double()
    data = [Batch(*batch[:1], *batch[1:]) for batch in (batches()[0], batches(count=5)[0])]
    data = [batch._replace(inputs=batch.inputs.double()) for batch in data]

    def loss_with_gate(batch: Batch, layer: int, channel: int, gate: float) -> float:
        handle = model[layer + 2].register_forward_hook(
            lambda _, __, output: torch.cat(
                [output[:, :channel], gate * output[:, [channel]], output[:, channel + 1 :]], 1
            )
        )
        value = float(F.cross_entropy(model(batch.inputs), batch.labels).detach())
        handle.remove()
        return value

    scores = {
        (layer, channel): sum(
            ((loss_with_gate(b, layer, channel, 1.001) - loss_with_gate(b, layer, channel, 0.999)) / 0.002) ** 2
            for b in data
        )
        for layer, size in ((0, 4), (3, 6))
        for channel in range(size)
    }
    done = prune(Artifact(model), data, ratio=0.6, saliency="taylor", scope="global", **FINE)
    kept = sorted(sorted(scores, key=scores.__getitem__)[4:])
    expected = [torch.stack([model[layer].weight[c].abs().sum() for at, c in kept if at == layer]) for layer in (0, 3)]
    torch.testing.assert_close(done.model[0].weight.abs().sum((1, 2, 3)), expected[0])
    assert len(done.model[3].weight) == len(expected[1])


def test_only_chosen_layers_lose_filters_and_only_where_all_that_shrink_are_chosen() -> None:
    artifact = trained("resnet20")
    before = widths(artifact.model)
    inner = widths(prune(artifact, ratio=0.5, layers=["layer*.conv1"], scope="layer").model)
    assert {path for path in before if inner[path] < before[path]} == {path for path in before if ".conv1" in path}
    assert widths(prune(artifact, layers=["layer1.0.conv2"]).model) == before  # bound to others by additions
    stream = prune(artifact, layers=["conv1", "layer1.*.conv2"], scope="layer").model
    assert {path for path in before if widths(stream)[path] < before[path]} == {
        path for path in before if path == "conv1" or (path.startswith("layer1") and path.endswith("conv2"))
    }


def test_min_channels_are_kept() -> None:
    after = widths(prune(Artifact(plain(3, 16, 32)), ratio=0.1, round_to=4, min_channels=12).model)
    assert list(after.values()) == [12, 12, 10]


class Softmax(nn.Module):
    """Something between layers that joins channels: those of the second layer cannot be told apart after it."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.softmax(dim=1)


def test_what_cannot_be_followed_stays_and_is_said_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    model = plain(3, 16, 16, 16)
    model[4] = Softmax()
    with caplog.at_level(logging.INFO, logger="distill"):
        done = prune(Artifact(model), ratio=0.5)
    assert list(widths(done.model).values()) == [8, 16, 8, 10]
    assert caplog.messages == [
        "prune_channels: 2 layers, 58 -> 42 channels, 5258 -> 2642 parameters, 1290400 -> 645200 MACs; "
        "left as they are: 2 (too narrow, or bound to what stays); not followed: _softmax"
    ]


class Stubborn(nn.Module):
    """Sizes written into the code."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(8, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.two(self.one(inputs).relu()).view(-1, 16, 256).unflatten(2, (16, 16))
        return self.head(self.three(x[:, 4:12]).amax((2, 3)))


def test_layers_whose_sizes_are_written_into_the_code_stay() -> None:
    done = prune(Artifact(Stubborn()), ratio=0.5)
    assert list(widths(done.model).values()) == [8, 16, 8, 10]


def test_a_network_that_cannot_be_followed_at_all_stays(caplog: pytest.LogCaptureFixture) -> None:
    class Choosy(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:
            scale = 1 / super().forward(inputs).abs().mean().item()
            return scale * super().forward(inputs)

    artifact = Artifact(Choosy(*plain(3, 16, 16)))
    with caplog.at_level(logging.INFO, logger="distill"):
        assert prune(artifact) is artifact
    assert "not followed: Choosy (ZeroDivisionError: float division by zero)" in caplog.text
    with pytest.raises(RecipeError, match=r"cannot meet max_params=0\.5: .* 1\.000 of them is the least"):
        prune(artifact, max_params=0.5)


def test_a_layer_used_twice_and_layers_that_share_weights() -> None:
    shared = nn.Conv2d(16, 16, 3, padding=1)
    tied = nn.Conv2d(16, 16, 1)
    other = nn.Conv2d(16, 16, 1)
    other.weight = tied.weight
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 1), shared, nn.ReLU(), shared, tied, other, nn.Flatten(), nn.Linear(4096, 10)
    )
    done = prune(Artifact(model), ratio=0.5).model
    assert done[1] is done[3]
    assert done[4].weight.shape == (16, 16, 1, 1)  # so what it reads has to stay as well
    free = nn.Sequential(model[0], shared, nn.ReLU(), shared, nn.Flatten(), nn.Linear(4096, 10))
    assert list(widths(prune(Artifact(free), ratio=0.5).model).values()) == [8, 8, 10]


def test_a_network_that_would_compute_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = Widths.kept

    def astray(self: Widths, channels: Channels) -> dict[str, tuple[list[int], list[int]]]:
        kept = fits(self, channels)
        kept["3"][0].reverse()
        return kept

    monkeypatch.setattr(Widths, "kept", astray)
    with pytest.raises(RecipeError, match="cannot tell how Sequential moves its channels: .* name layers"):
        prune(Artifact(plain(3, 16, 16)))


def test_stored_forms_come_after_it() -> None:
    artifact = quantize(trained("resnet20"), layers=["layer1.0.conv1"])
    with pytest.raises(RecipeError, match=r"would undo how 'layer1\.0\.conv1\.weight' is stored: put it before"):
        prune(artifact)


def test_factors_of_other_hooks_get_narrower_too() -> None:
    artifact = svd(Artifact(plain(3, 32, 32)), nets.anything, batches(), max_params=0.5)
    images = batches()[0].inputs
    done = prune(artifact, max_params=0.5, round_to=2, min_channels=2)
    assert [plan.hook for plan in done.plans] == ["svd", "prune_channels"]
    assert cost.params(done.model) <= 0.5 * cost.params(artifact.model)
    assert done.model(images).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 0.0}, "0 < ratio < 1: not ratio=0.0"),
        ({"ratio": 1.0}, "0 < ratio < 1: not ratio=1.0"),
        ({"max_macs": 0.0}, "keeps some: not max_macs=0.0"),
        ({"max_params": float("nan")}, "keeps some: not max_params=nan"),
        ({"max_macs": 0.5, "max_params": 0.5}, "meets one budget: max_params=0.5 or max_macs=0.5, not both"),
        ({"round_to": 0}, "needs round_to and min_channels of 1 or more, not 0, 8"),
        ({"layers": ["conv9"]}, "no layer to compress matches 'conv9'"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        prune(trained("resnet20"), **settings)
