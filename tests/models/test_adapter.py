import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from distill import load
from distill.artifact import Artifact
from distill.errors import RecipeError
from distill.export import onnx_file
from distill.models import cost
from distill.models.adapter import adapt
from distill.models.auxiliary import auxiliary_weights, heads_fit, remove_heads
from distill.models.build import REMOVED_HEADS, build_network
from distill.models.channels.propagation import trace_channels
from distill.models.taps import Taps
from distill.models.tracing import trace
from tests.nets import Forked

FORKED = "tests.nets:Forked"
OUTPUTS = {"dict": None, "names": "classes", "list": "-1", "tuple": "1", "dataclass": None, "named tuple": None}
IMAGES = torch.linspace(-1, 1, 2 * 64).reshape(2, 1, 8, 8)


def forked(kind: str = "dict", **entry: Any) -> nn.Module:
    settings = {"name": FORKED, "kind": kind, "num_classes": 3, **entry}
    return build_network(settings, allow=["tests.nets"]).eval()


@pytest.mark.parametrize(("kind", "output"), OUTPUTS.items())
def test_the_main_output_is_one_tensor(kind: str, output: str | None) -> None:
    model = forked(kind, output=output)
    expected = model.head(model.body(IMAGES).relu().mean((2, 3)))
    torch.testing.assert_close(model(IMAGES), expected)
    assert list(model.state_dict()) == list(Forked().state_dict())
    torch.testing.assert_close(copy.deepcopy(model)(IMAGES), expected)


@pytest.mark.parametrize(
    ("kind", "output", "complaint"),
    [
        ("tuple", None, r"Forked returns a tuple of '0' \(2, 3\), '1' \(2, 3\), so say which.*output: NAME"),
        ("names", "class", r"returns a dict of 'classes' \(2, 3\), 'aux' \(2, 3\), but no tensor 'class'"),
        ("list", "2", r"returns a list of .*no tensor '2'"),
    ],
)
def test_an_output_that_is_not_found_lists_what_there_is(kind: str, output: str | None, complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        forked(kind, output=output)(IMAGES)


def test_an_auxiliary_output_is_a_tap_in_training_alone() -> None:
    model = forked(auxiliary={"aux": 0.2})
    assert auxiliary_weights(model) == {"aux": 0.2}
    tapped = Taps(model, ["body", ""])
    assert list(tapped(IMAGES)[1]) == ["body", ""]
    output, features = tapped.train()(IMAGES)
    assert list(features) == ["body", "", "aux"]
    torch.testing.assert_close(features["aux"], model.extra(model.body(IMAGES).relu().mean((2, 3))))
    torch.testing.assert_close(features[""], output)


class Supervised(nn.Sequential):
    """Names a module whose output the task's loss trains too."""

    auxiliary = {"1": 0.5}


def test_a_network_names_modules_as_auxiliary() -> None:
    model = Supervised(nn.Flatten(), nn.Linear(64, 3), nn.Linear(3, 3))
    output, features = Taps(model.train(), [])(IMAGES)
    assert auxiliary_weights(model) == {"1": 0.5}
    torch.testing.assert_close(model[2](features["1"]), output)
    assert remove_heads(model.eval(), IMAGES) == {}  # the output depends on it


def test_heads_are_removed_and_the_artifact_keeps_that(tmp_path: Path) -> None:
    model = forked(auxiliary={"aux": 0.2})
    before, size = model(IMAGES), cost.params(model)
    entry = {"name": FORKED, "kind": "dict", "num_classes": 3, "auxiliary": {"aux": 0.2}}
    removed = remove_heads(model, IMAGES)
    assert removed == {"extra": "identity"}
    assert cost.params(model) == size - cost.params(Forked().extra)
    assert torch.equal(model(IMAGES), before)
    assert auxiliary_weights(model) == {}
    assert not any(module.training for module in model.modules())
    assert list(Taps(model.train(), [])(IMAGES)[1]) == []
    Artifact(model.eval(), network={**entry, REMOVED_HEADS: removed}).save(tmp_path / "net.safetensors")
    loaded = load(tmp_path / "net.safetensors", allow=["tests.nets"])
    assert torch.equal(loaded(IMAGES), before)
    assert list(loaded.state_dict()) == ["body.weight", "body.bias", "head.weight", "head.bias"]


def test_tracing_and_export_see_the_main_output() -> None:
    model = forked()
    flow = trace(model, IMAGES[:1])
    assert flow.shapes[flow.result] == (1, 3)
    channels = trace_channels(model, IMAGES[:1], ["body", "head", "extra.0", "extra.2"], {})
    assert channels.ends["head"].inputs == channels.ends["body"].outputs
    session = onnx_file.session(onnx_file.serialize(model, IMAGES))
    assert len(session.get_outputs()) == 1
    torch.testing.assert_close(onnx_file.answer(session, IMAGES), model(IMAGES).detach())


GOOGLENET = {"name": "googlenet", "num_classes": 5, "init_weights": False}
INCEPTION = {"name": "inception_v3", "num_classes": 5, "init_weights": False}


@pytest.mark.parametrize(
    ("entry", "size", "weights", "heads"),
    [
        (GOOGLENET, 64, {"aux1": 0.3, "aux2": 0.3}, {"aux1": "none", "aux2": "none"}),
        (INCEPTION, 299, {"aux1": 0.4}, {"AuxLogits": "none"}),
    ],
)
def test_torchvisions_classifiers_with_auxiliary_heads(
    entry: dict[str, Any], size: int, weights: dict[str, float], heads: dict[str, str]
) -> None:
    model, images = build_network(entry), torch.randn(2, 3, size, size)
    assert auxiliary_weights(model) == weights
    output, features = Taps(model.train(), [])(images)
    assert {name: tuple(feature.shape) for name, feature in features.items()} == dict.fromkeys(weights, (2, 5))
    assert output.shape == (2, 5)
    expected = model.eval()(images)
    assert remove_heads(model, images) == heads
    assert torch.equal(model(images), expected)
    without = torchvision.models.get_model(
        entry["name"], num_classes=5, aux_logits=False, init_weights=False, weights=None
    )
    assert list(model.state_dict()) == list(without.state_dict())


@pytest.mark.parametrize(
    "entry", [{**GOOGLENET, "aux_logits": False}, {"name": "fcn_resnet50", "num_classes": 5, "weights_backbone": None}]
)
def test_a_network_that_is_built_without_its_heads_has_no_auxiliary_outputs(entry: dict[str, Any]) -> None:
    model = build_network(entry)
    assert auxiliary_weights(model) == {}
    assert list(Taps(model.train(), [])(torch.randn(2, 3, 32, 32))[1]) == []


def test_the_weight_of_a_known_head_is_the_recipes() -> None:
    assert auxiliary_weights(build_network({**GOOGLENET, "auxiliary": {"aux2": 0.1}})) == {"aux1": 0.3, "aux2": 0.1}


def test_an_auxiliary_output_that_does_not_come_is_named() -> None:
    with pytest.raises(RecipeError, match=r"returns 'out' \(2, 3\), 'aux' \(2, 3\), but no auxiliary output 'side'"):
        Taps(forked(auxiliary={"side": 0.3}).train(), [])(IMAGES)


@pytest.mark.parametrize(("size", "fits"), [(80, False), (299, True)])
def test_inceptions_head_wants_large_images(size: int, fits: bool) -> None:
    assert heads_fit(build_network(INCEPTION).eval(), torch.randn(2, 3, size, size)) is fits


def test_segmentation() -> None:
    entry = {"name": "lraspp_mobilenet_v3_large", "num_classes": 4, "weights_backbone": None}
    assert build_network(entry).eval()(torch.randn(1, 3, 64, 64)).shape == (1, 4, 64, 64)
    entry = {"name": "fcn_resnet50", "num_classes": 4, "weights_backbone": None, "aux_loss": True}
    model = build_network(entry)
    _, features = Taps(model.train(), [])(torch.randn(2, 3, 32, 32))
    assert features["aux1"].shape == (2, 4, 32, 32)
    assert remove_heads(model.eval(), torch.randn(1, 3, 32, 32)) == {"aux_classifier": "none"}


def test_optical_flow_reads_stacked_images_and_returns_the_last_flow() -> None:
    model = build_network({"name": "raft_small"}).eval()
    pair = torch.rand(1, 6, 128, 128)
    with torch.no_grad():
        flows = torchvision.models.optical_flow.RAFT.forward(model, pair[:, :3], pair[:, 3:])
        assert torch.equal(model(pair), flows[-1])
        with pytest.raises(RecipeError, match="RAFT reads 2 images, but a sample has 3 channels"):
            model(pair[:, :3])


def test_a_network_of_tensors_is_left_as_it_is() -> None:
    model = adapt(nn.Linear(64, 3))
    assert torch.equal(model(IMAGES.flatten(1)), nn.Linear.forward(model, IMAGES.flatten(1)))
    assert remove_heads(model, IMAGES.flatten(1)) == {}
