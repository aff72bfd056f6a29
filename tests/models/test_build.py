from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from distill.errors import ArtifactError, RecipeError
from distill.models.build import build_network, network_entry
from distill.models.weights import load_weights
from distill.recipe.loading import load
from tests.nets import ConvNet

SAMPLES = {"num_classes": 7, "channels": 1}


def test_classes_and_channels_follow_from_the_data() -> None:
    made = network_entry(load("smoke").student, SAMPLES)
    assert made == {"name": "mobilenet_v1", "width": 0.25, "small_images": True, "num_classes": 7, "channels": 1}
    assert build_network(made)(torch.zeros(2, 1, 8, 8)).shape == (2, 7)


def test_torchvisions_networks_are_found_by_name() -> None:
    made = network_entry(load("smoke", ["student={name: efficientnet_b0}"]).student, SAMPLES)
    assert build_network(made)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_a_network_of_the_users_own() -> None:
    recipe = load("smoke", ["student={name: 'tests.nets:ConvNet', arguments: {width: 2}}"])
    made = network_entry(recipe.student, SAMPLES)
    assert made == {"name": "tests.nets:ConvNet", "width": 2, "num_classes": 7, "channels": 1}
    assert isinstance(build_network(made, allow=["tests.nets"]), ConvNet)


def test_code_from_outside_is_only_built_when_allowed() -> None:
    with pytest.raises(ArtifactError, match=r"pass allow=\['tests.nets'\]"):
        build_network({"name": "tests.nets:ConvNet"})


def test_an_impossible_setting_is_named() -> None:
    with pytest.raises(RecipeError, match="network 'shufflenet_v2' cannot be built: .*0.3"):
        build_network({"name": "shufflenet_v2", "width": 0.3})


@pytest.mark.parametrize("form", ["safetensors", "plain", "nested"])
def test_weights_from_a_file(form: str, tmp_path: Path) -> None:
    state = ConvNet().state_dict()
    if form == "safetensors":
        save_file(state, path := tmp_path / "net.safetensors")
    else:
        torch.save({"state_dict": state} if form == "nested" else state, path := tmp_path / "net.pt")
    model = ConvNet()
    load_weights(model, str(path), name="mine")
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def bad(kind: str, folder: Path) -> str:
    path = folder / "net.pt"
    state: dict[str, Tensor] = ConvNet(width=5 if kind == "other" else 4).state_dict()
    torch.save({**state, "code": ConvNet} if kind == "code" else state, path)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:100])
    return str(path)


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("cut", "cannot read checkpoint"),
        ("code", "holds more than tensors"),
        ("other", "do not fit network 'mine': .*size mismatch"),
    ],
)
def test_a_bad_file_is_named(kind: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=complaint) as captured:
        load_weights(ConvNet(), bad(kind, tmp_path), name="mine")
    assert "net.pt" in str(captured.value)


def test_a_classifier_for_other_classes_starts_anew_when_asked() -> None:
    model, trained = ConvNet(num_classes=3), ConvNet(num_classes=10)
    path = "unused.pt"
    own = model.head.weight.clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill.models.weights._file_state", lambda _: trained.state_dict())
        load_weights(model, path, name="mine", new_classifier=True)
        with pytest.raises(RecipeError, match="size mismatch for head"):
            load_weights(ConvNet(num_classes=3), path, name="mine")
    assert torch.equal(model.stage1[0].weight, trained.stage1[0].weight)
    assert torch.equal(model.head.weight, own)


@pytest.mark.parametrize(
    ("name", "weights", "complaint"),
    [
        ("resnet18", "IMAGENET9", "'resnet18' has no weights 'IMAGENET9', but: IMAGENET1K_V1"),
        ("mine", "IMAGENET1K_V1", "torchvision has no weights for network 'mine'"),
        ("resnet18", "gone.pt", "no checkpoint file 'gone.pt'"),
    ],
)
def test_unknown_weights_are_named(name: str, weights: str, complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        load_weights(ConvNet(), weights, name=name)
