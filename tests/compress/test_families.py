"""Every hook on one small member of each family of torchvision's classifiers.

It makes the file smaller or says why not, and the network runs at any batch size, is read back exactly, learns a step,
and is the same in ONNX Runtime.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distill.artifact import Artifact, open_artifact
from distill.artifact.straight_through import finalize, trainable
from distill.batch import Batch
from distill.compress import hook
from distill.compress._contract import call_hook
from distill.errors import RecipeError
from distill.export import onnx_file
from distill.models.auxiliary import without_heads
from distill.models.surgery import deployable
from distill.registry import injected
from tests import families
from tests.compress import nets

SETTINGS: dict[str, dict[str, Any]] = {
    "cp": {"max_params": 0.8},
    "predict_parameters": {"max_params": 0.9},
    "svd": {"max_params": 0.7},
    "tensor_train": {"max_params": 0.7},
    "tt_matrix": {"max_params": 0.9},
    "tucker": {"max_params": 0.7},
}
BEFORE = {"encode": "quantize"}
ON_INTEGERS = 0.1
"""Of the largest output: ties are rounded one way by PyTorch and the other by a runtime."""


def compressed(name: str, artifact: Artifact, batch: Batch) -> Artifact:
    if name in BEFORE:
        artifact = compressed(BEFORE[name], artifact, batch)
    given = {
        "artifact": artifact,
        "calibration": [batch],
        "evaluate": lambda model: 1.0,
        "example": batch,
        "progress": 1.0,
        "task_loss": nets.task_loss,
    }
    component = hook.find(name)
    arguments = [given[argument] for argument in injected(component)]
    return call_hook(name, lambda: component(*arguments, **SETTINGS.get(name, {})), artifact)


def outputs(model: torch.nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images)


@pytest.mark.slow
@pytest.mark.parametrize("family", families.FAMILIES)
@pytest.mark.parametrize("name", hook.names())
def test_every_hook_on_every_family(name: str, family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    artifact = Artifact(families.build(family), network={"name": f"tests.families:{family}"})
    labels = torch.arange(8) % families.CLASSES
    batch = Batch(families.images(family, 8, seed=2), labels, torch.arange(8))
    try:
        done = compressed(name, artifact, batch)
    except RecipeError as refusal:
        pytest.skip(f"refused: {refusal}")
    images = families.images(family, 8)
    found = outputs(done.model, images)
    assert found.isfinite().all()
    torch.testing.assert_close(
        outputs(done.model, images[:1]), found[:1], rtol=1e-3, atol=3e-2 * float(found.abs().max())
    )
    if done.nbytes() >= artifact.nbytes():
        assert f"{name}: nothing to do" in caplog.text or f"{name}: the file is not smaller" in caplog.text

    done.save(tmp_path / "student.safetensors")
    loaded = open_artifact(tmp_path / "student.safetensors", allow=["tests.families"])
    assert torch.equal(outputs(loaded.model, images), found)

    if not done.encoded:
        model = trainable(done).train()
        loss = cross_entropy(first(model(images)), labels)
        loss.backward()
        torch.optim.SGD([p for p in model.parameters() if p.grad is not None], lr=1e-3).step()
        learned = finalize(done, model.eval())
        learned.save(tmp_path / "learned.safetensors")
        again = open_artifact(tmp_path / "learned.safetensors", allow=["tests.families"])
        assert torch.equal(outputs(again.model, images), outputs(learned.model, images))

    runtime = onnx_file.session(onnx_file.serialize(deployable(done.model), images))
    for count in (8, 1, 3):
        expected = outputs(done.model, images[:count])
        wrong = float((onnx_file.answer(runtime, images[:count]) - expected).abs().max() / expected.abs().max())
        assert wrong < (ON_INTEGERS if name == "int8" else 1e-4)


def first(output: Any) -> Tensor:
    """The logits: some families have auxiliary outputs while they train."""
    return output if isinstance(output, Tensor) else output.logits


@pytest.mark.parametrize("name", ["nested_level", "prune_channels"])
def test_channels_that_auxiliary_heads_read_are_not_removed(name: str) -> None:
    """Traced without them, their inputs would no longer fit: the next step of training failed."""
    images = families.images("googlenet", 8, seed=2)
    batch = Batch(images, torch.arange(8) % families.CLASSES, torch.arange(8))
    artifact = Artifact(families.build("googlenet"), network={"name": "tests.families:googlenet"})
    with pytest.raises(RecipeError, match=f"'{name}' removes channels that modules read in training"):
        compressed(name, artifact, batch)
    shipped = without_heads(artifact.copy_model(), {"aux1": "none", "aux2": "none"})
    assert compressed(name, replace(artifact, model=shipped), batch).nbytes() < artifact.nbytes()
