"""Hooks on the networks of the tasks beside classification: detectors, flow, style, masks.

Each makes the file smaller or says why not; what it made is read back exactly and is the same in ONNX Runtime.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.artifact import Artifact, open_artifact
from distill.compress import hook
from distill.data import DataModule
from distill.errors import RecipeError
from distill.export import exporter
from distill.pipeline.apply_hook import apply_hook
from distill.pipeline.build import data_and_task, initial_artifact
from distill.recipe.loading import load
from distill.recipe.schema import Hook
from distill.registry import schema
from distill.tasks import Task

TASKS = ("detection", "flow", "segmentation", "style")
HOOKS: dict[str, dict[str, Any]] = {
    "cluster": {},
    "int8": {},
    "prune": {"sparsity": 0.5},
    "prune_channels": {"max_macs": 0.8, "round_to": 2},
    "quantize": {},
    "svd": {"max_params": 0.8},
    "tensor_train": {"max_params": 0.8},
    "tucker": {"max_params": 0.8},
}


@cache
def setting(name: str) -> tuple[DataModule, Task, Artifact]:
    recipe = load(f"{name}/smoke")
    data, task = data_and_task(recipe)
    return data, task, initial_artifact(recipe.student, data, task, recipe.seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("label", HOOKS)
def test_a_hook_on_a_tasks_network(label: str, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, task, artifact = setting(name)
    spec = schema(hook.find(label), Hook)(name=label, **HOOKS[label])
    try:
        done = apply_hook(spec, artifact, data, task, monitor=lambda _: 1.0, samples=8, progress=1.0)
    except RecipeError as refusal:
        pytest.skip(f"refused: {refusal}")
    assert done.nbytes() < artifact.nbytes() or f"{label}: the file is not smaller" in caplog.text
    samples = data.calibration(4)
    done.save(tmp_path / "student.safetensors")
    opened = open_artifact(tmp_path / "student.safetensors")
    with torch.no_grad():
        before, after, again = (one.model(samples[0].inputs) for one in (artifact, done, opened))
    assert after.shape == before.shape
    assert torch.equal(after, again)
    made = exporter.find("onnx")(done, tmp_path, samples, task)
    assert made.agreement >= 0.95
