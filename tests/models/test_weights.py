import copy
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from distill.artifact import Artifact, open_artifact
from distill.artifact.straight_through import finalize, trainable
from distill.compress.encode import encode
from distill.compress.quantization.int8 import int8
from distill.compress.quantization.quantize import quantize
from distill.errors import RecipeError
from distill.models.build import build_network
from distill.models.state import load_state
from distill.models.weights import load_weights
from tests.compress import nets
from tests.nets import ConvNet

WRAPPERS = {"plain": "", "data parallel": "module.", "compiled": "_orig_mod."}


@pytest.mark.parametrize("form", ["safetensors", "nested", *WRAPPERS])
def test_weights_from_a_file(form: str, tmp_path: Path) -> None:
    state = ConvNet().state_dict()
    if form == "safetensors":
        save_file(state, path := tmp_path / "net.safetensors")
    else:
        prefixed = OrderedDict((WRAPPERS.get(form, "") + key, value) for key, value in state.items())
        torch.save({"state_dict": state} if form == "nested" else prefixed, path := tmp_path / "net.pt")
    model = ConvNet()
    load_weights(model, str(path), name="mine")
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_weights_without_counters_of_batches_load_as_pytorch_loads_them(tmp_path: Path) -> None:
    """Checkpoints of PyTorch before 0.4.1, and many converted ones, have none."""
    state = {key: value for key, value in ConvNet().state_dict().items() if "num_batches_tracked" not in key}
    assert len(state) < len(ConvNet().state_dict())
    torch.save(state, path := tmp_path / "net.pt")
    model = ConvNet()
    load_weights(model, str(path), name="mine")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    "hook", [lambda a: quantize(a), lambda a: encode(quantize(a)), lambda a: int8(a, nets.calibration(), lambda _: 1.0)]
)
def test_a_compressed_artifact_is_no_checkpoint(hook: Callable[[Artifact], Artifact], tmp_path: Path) -> None:
    artifact = nets.artifact()
    artifact.save(tmp_path / "plain.safetensors")
    load_weights(artifact.copy_model(), str(tmp_path / "plain.safetensors"), name="mine")
    hook(artifact).save(tmp_path / "small.safetensors")
    with pytest.raises(RecipeError, match=r"small\.safetensors' is a compressed artifact: give that of a step before"):
        load_weights(artifact.copy_model(), str(tmp_path / "small.safetensors"), name="mine")


def bad(kind: str, folder: Path) -> str:
    path = folder / "net.pt"
    state: dict[str, Tensor] = ConvNet(width=5 if kind == "other" else 4).state_dict()
    name = "stage1.0.weight"
    contents: dict[str, Any] = {
        "code": {**state, "code": ConvNet},
        "list": list(state.values()),
        "tensor": state[name],
        "number": 3,
        "empty": {},
        "numbers": {"epoch": 3, "loss": 0.1},
        "positions": dict(enumerate(state.values())),
        "nested": {"net": state},
        "none": {**state, name: None},
        "nan": {**state, name: state[name] / 0},
        "sparse": {**state, name: state[name].to_sparse()},
        "complex": {**state, name: state[name].to(torch.complex64)},
    }
    torch.save(contents.get(kind, state), path)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:100])
    if kind in ("nothing", "text"):
        path.write_bytes(b"" if kind == "nothing" else b"# weights\n")
    return str(path)


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("cut", "cannot read checkpoint"),
        ("nothing", "the file is empty"),
        ("text", "cannot read checkpoint|holds more than tensors"),
        ("code", "holds more than tensors"),
        ("other", "do not fit network 'mine': .*size mismatch"),
        ("list", "holds a list in place of a state dict"),
        ("tensor", "holds a Tensor in place of a state dict"),
        ("number", "holds a int in place of a state dict"),
        ("empty", "holds a dict in place of a state dict with tensors"),
        ("numbers", "holds a int under 'epoch', where a state dict has tensors"),
        ("positions", "holds a Tensor under 0"),
        ("nested", "holds a OrderedDict under 'net'"),
        ("none", "holds a NoneType under 'stage1.0.weight'"),
        ("nan", "holds NaN or Inf in 'stage1.0.weight'"),
        ("sparse", "holds 'stage1.0.weight' in a form that no network here has"),
        ("complex", "holds 'stage1.0.weight' in a form that no network here has"),
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


def googlenet(**settings: Any) -> nn.Module:
    return torchvision.models.googlenet(weights=None, init_weights=False, **settings)


@pytest.mark.parametrize("settings", [{"num_classes": 3}, {"num_classes": 3, "aux_logits": False}])
def test_auxiliary_heads_start_anew_or_are_left_out(settings: dict[str, Any], tmp_path: Path) -> None:
    trained, model = googlenet(num_classes=5), googlenet(**settings)
    torch.save(trained.state_dict(), tmp_path / "net.pt")
    load_weights(model, str(tmp_path / "net.pt"), name="googlenet", new_classifier=True)
    fresh = {name for name, value in model.state_dict().items() if not torch.equal(value, trained.state_dict()[name])}
    heads = ["fc"] if "aux_logits" in settings else ["fc", "aux1.fc2", "aux2.fc2"]
    assert fresh == {f"{head}.{kind}" for head in heads for kind in ("weight", "bias")}


MNASNET = {"name": "mnasnet0_5", "num_classes": 3}  # refuses a state dict without a version
IMAGES = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)


@pytest.mark.parametrize("file", ["net.safetensors", "net.pt"])
def test_versioned_networks_load_tensors_without_a_version(file: str, tmp_path: Path) -> None:
    trained, model = build_network(MNASNET).eval(), build_network(MNASNET).eval()
    state = dict(trained.state_dict())
    save_file(state, tmp_path / file) if file.endswith("safetensors") else torch.save(state, tmp_path / file)
    load_weights(model, str(tmp_path / file), name="mnasnet0_5")
    assert torch.equal(model(IMAGES), trained(IMAGES))


def test_versioned_networks_are_trained_after_a_hook_saved_and_copied(tmp_path: Path) -> None:
    artifact = Artifact(build_network(MNASNET).eval(), network=MNASNET)
    done = finalize(artifact, trainable(artifact))
    done.save(tmp_path / "net.safetensors")
    loaded = open_artifact(tmp_path / "net.safetensors")
    for model in (done.model, loaded.model, copy.deepcopy(loaded.copy_model())):
        assert torch.equal(model(IMAGES), artifact.model(IMAGES))


def test_a_state_keeps_the_version_that_it_has() -> None:
    class Old(nn.Linear):
        _version = 2

        def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *others: Any) -> None:
            loaded.append(metadata.get("version"))
            super()._load_from_state_dict(state, prefix, metadata, *others)

    loaded: list[int] = []
    model = Old(1, 1)
    load_state(model, dict(model.state_dict()))
    state = model.state_dict()
    state._metadata[""]["version"] = 1  # type: ignore[attr-defined]
    load_state(model, state)
    assert loaded == [2, 1]
