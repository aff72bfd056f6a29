"""Characters through the whole line: letters drawn with Pillow's own font, which needs no package of the system."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.artifact import open_artifact
from distill.data.fonts import Face, drawn
from distill.pipeline.predict import predict
from distill.pipeline.run import Result, run
from distill.recipe.loading import load


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("runs")
    fewer = ["data.limit=200", "data.copies=6", "baseline=false"]
    return run(load("characters/smoke", [*fewer, f"output={folder}", "tracking.mode=disabled"]))


@pytest.fixture(scope="module")
def report(result: Result) -> dict[str, Any]:
    return json.loads((result.folder / "report.json").read_text())


def test_the_hybrid_line_ends_small(report: dict[str, Any]) -> None:
    steps = {step["step"]: step for step in report["steps"]}
    hooks = ["compress/1-svd", "compress/2-prune", "compress/3-int8", "compress/4-encode"]
    assert list(steps) == ["teacher", "student", *hooks, "export/onnx"]
    assert steps["compress/1-svd"]["macs"] <= 0.5 * steps["student"]["macs"]
    sizes = [steps[name]["bytes"] for name in ("student", *hooks)]
    assert sizes == sorted(sizes, reverse=True)
    assert all("test/top10_accuracy" in step["metrics"] for step in steps.values())
    assert report["units"] == {"accuracy": "%", "top10_accuracy": "%"}
    assert len(report["figures"]["confusion"]) == 52


def test_pruned_weights_are_zeros_on_integers(result: Result) -> None:
    weights = dict(open_artifact(result.folder / "student.safetensors").model.named_parameters())
    zeros = [float((weights[f"fc{number}.weight"] == 0).float().mean()) for number in (1, 2)]
    assert min(zeros) > 0.5
    assert np.average(zeros, weights=[weights[f"fc{number}.weight"].numel() for number in (1, 2)]) >= 0.79


def test_predictions_name_characters(result: Result, tmp_path: Path) -> None:
    drawn(Face(), "Q", 48).save(tmp_path / "q.png")
    (found,) = predict(result.folder / "student.safetensors", [tmp_path / "q.png"])
    assert len(found["class"]) == 1
    assert found["class"].isalpha()
