"""SSD on networks of timm."""

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from distill.errors import RecipeError
from distill.models.build import build_network
from distill.models.weights import load_weights
from students import ssd_timm
from tests.test_offline import GUARD, ROOT


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_are_timms_and_those_of_the_head() -> None:
    """ResNet-18 has 11,689,512 parameters, 513,000 of them in its classifier."""
    network = ssd_timm(num_classes=20, backbone="resnet18", extras=(), anchors=(3, 6))
    values = 1 + 20 + 4
    head = sum((9 * inputs + 1) * count * values for inputs, count in ((256, 3), (512, 6)))
    assert parameters(network) == 11_689_512 - 513_000 + head


def test_parameters_of_the_maps_behind_follow_from_their_channels() -> None:
    plain, longer = (
        ssd_timm(backbone="test_resnet", extras=extras, anchors=(1,) * (2 + len(extras))) for extras in ((), (64,))
    )
    norms = 2 * 32 + 2 * 64
    inputs = timm.create_model("test_resnet").num_features
    assert parameters(longer) - parameters(plain) == inputs * 32 + 9 * 32 * 64 + norms + (9 * 64 + 1) * 85


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "swin_tiny_patch4_window7_224", "test_efficientnet"])
def test_maps_are_timms_channels_first(name: str) -> None:
    size = timm.get_pretrained_cfg(name).input_size[-1]
    network = ssd_timm(num_classes=2, backbone=name, strides=(16, 32), extras=(), anchors=(1, 1)).eval()
    images = torch.randn(1, 3, size, size)
    reference = timm.create_model(name).eval()
    network.load_state_dict(reference.state_dict())
    with torch.no_grad():
        maps = network.body(images)
        last = reference.forward_intermediates(images, intermediates_only=True)[-1]
    assert [tuple(features.shape[2:]) for features in maps] == [(size // 16,) * 2, (size // 32,) * 2]
    if name != "swin_tiny_patch4_window7_224":  # which normalises the map that it gives here
        torch.testing.assert_close(maps[-1], last)


def test_earlier_layers_alone_are_built() -> None:
    short = ssd_timm(backbone="resnet18", strides=(8, 16), extras=(), anchors=(1, 1))
    assert not any("layer4" in name for name in short.state_dict())


def test_a_file_of_timms_classifier_fills_the_backbone_and_nothing_else(tmp_path: Path) -> None:
    reference = timm.create_model("test_convnext").state_dict()
    torch.save(reference, tmp_path / "convnext.pt")
    network = ssd_timm(backbone="test_convnext", extras=(), anchors=(1, 1))
    head = network.head.layers[0].weight.clone()
    load_weights(network, str(tmp_path / "convnext.pt"), name="ssd_timm")
    assert torch.equal(
        network.state_dict()["body.network.stages_3.blocks.0.mlp.fc1.weight"],
        reference["stages.3.blocks.0.mlp.fc1.weight"],
    )
    assert torch.equal(network.head.layers[0].weight, head)
    whole = network.state_dict()
    again = ssd_timm(backbone="test_convnext", extras=(), anchors=(1, 1))
    again.load_state_dict(whole)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.items())


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "other.pt")
    network = ssd_timm(backbone="test_resnet", extras=(), anchors=(1, 1))
    with pytest.raises(RecipeError, match="do not fit network 'ssd_timm'"):
        load_weights(network, str(tmp_path / "other.pt"), name="ssd_timm")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "resnet81"}, "timm has no network 'resnet81'. Did you mean 'resnet18'"),
        ({"backbone": "hf-hub:timm/resnet18"}, "timm has no network 'hf-hub:timm/resnet18'"),
        ({"strides": (12, 32)}, "'resnet18' has maps of strides 2, 4, 8, 16, 32, but none of 12"),
        ({"anchors": (3, 3)}, "anchors are given for 2 maps, but the network has 6"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=f"network 'ssd_timm' cannot be built: {message}"):
        build_network({"name": "ssd_timm", **settings})


def test_without_timm_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(RecipeError, match=r"timm is not installed: pip install 'distill\[timm\]'$"):
        build_network({"name": "ssd_timm"})


def test_nothing_is_downloaded(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(GUARD)
    program = "from students import ssd_timm; ssd_timm(backbone='test_resnet.r160_in1k')"
    environment = {"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "NETWORK" not in done.stderr
