"""Evaluation and hooks: networks go to the device, artifacts and calibration images stay on the CPU."""

from typing import Any

import pytest
import torch
from torch import nn

from distill.artifact import Artifact
from distill.compress import hook
from distill.measure import evaluation
from distill.models.surgery import deployable
from distill.pipeline.apply_hook import apply_hook
from distill.recipe.schema import Hook
from distill.registry import schema
from distill.tasks.classification import Classification
from tests.nets import TEN_CLASSES, ConvNet
from tests.training.test_distiller import digits

HOOKS: dict[str, dict[str, Any]] = {
    "svd": {"max_drop": 0.5},
    "prune_channels": {"max_macs": 0.9},
    "quantize": {"bits": 8},
    "int8": {},
    "prune": {"sparsity": 0.5},
}


@pytest.fixture
def _on(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device(device))


@pytest.mark.usefixtures("_on")
def test_metrics_are_those_of_the_cpu_and_the_network_goes_alone() -> None:
    network, task, batches = ConvNet().eval(), Classification(TEN_CLASSES), digits().val_dataloader()
    expected = evaluation.score(network, batches, task)
    assert evaluation.score(evaluation.to_accelerator(deployable(network)), batches, task) == pytest.approx(
        expected, abs=0.04
    )
    assert next(network.parameters()).device.type == "cpu"


@pytest.mark.usefixtures("_on")
@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_judges_on_the_device_and_leaves_the_artifact_on_the_cpu(name: str, device: str) -> None:
    task, data, places = Classification(TEN_CLASSES), digits(), set()

    def monitor(model: nn.Module) -> float:
        judged = deployable(model)
        value = evaluation.score(evaluation.to_accelerator(judged), data.val_dataloader(), task)["accuracy"]
        places.update(parameter.device.type for parameter in judged.parameters())
        return value

    spec = schema(hook.find(name), Hook)(name=name, **HOOKS[name])
    made = apply_hook(spec, Artifact(ConvNet().eval()), data, task, monitor=monitor, samples=32, progress=1.0)
    assert {value.device.type for value in made.model.state_dict().values()} == {"cpu"}
    assert places <= {device}
