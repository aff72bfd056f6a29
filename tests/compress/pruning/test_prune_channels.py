"""Channels removed for real: a network without its dead channels computes what it did, through every connection."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from distill.artifact import Artifact, open_artifact
from distill.compress.low_rank.svd import svd
from distill.compress.quantization.quantize import quantize
from distill.errors import RecipeError
from distill.export import onnx_file
from distill.models import cost
from distill.models.taps import Taps
from tests.compress import nets
from tests.compress.pruning.channels import (
    NORMALISED,
    SMALL,
    assert_same,
    batches,
    network,
    plain,
    prune,
    settled,
    trained,
    widths,
)


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
