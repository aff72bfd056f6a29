"""The whole line with a task, data, networks and a loss of somebody else's, and nothing of ours changed for them."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch

import distill
from distill.artifact import open_artifact
from distill.errors import DistillError, RecipeError
from distill.pipeline.plan import plan
from distill.pipeline.run import Result, run
from tests.tasks import toy

PACKAGE = "places_of_somebody"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("outside")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def result(folder: Path) -> Result:
    return run(distill.load_recipe(str(toy.write(folder, PACKAGE))))


@pytest.fixture(scope="module")
def report(result: Result) -> dict[str, Any]:
    return json.loads((result.folder / "report.json").read_text())


def steps(report: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {step["step"]: step["metrics"] for step in report["steps"]}


def test_every_step_has_both_metrics_on_both_splits(report: dict[str, Any]) -> None:
    hooks = ["compress/1-svd", "compress/2-quantize", "compress/3-encode"]
    assert list(steps(report)) == ["teacher", "baseline", "student", *hooks, "export/onnx"]
    for metrics in steps(report).values():
        assert set(metrics) == {f"{split}/{name}" for split in ("val", "test") for name in ("distance", "close")}


def test_it_learns_to_be_closer_than_a_guess(report: dict[str, Any]) -> None:
    assert report["warnings"] == [] or "no better than guessing" not in report["warnings"][0]
    assert steps(report)["compress/3-encode"]["test/distance"] < 0.5 * report["guess"]["test/distance"]


def test_the_best_epoch_is_the_one_of_the_least_distance(report: dict[str, Any]) -> None:
    curve = [row["val/distance"] for row in report["curves"]["student/distill"]]
    assert steps(report)["student"]["val/distance"] == pytest.approx(min(curve), rel=1e-4)
    assert min(curve) < max(curve)


def test_named_terms_auxiliary_heads_and_parts_are_in_the_curves(report: dict[str, Any]) -> None:
    terms = {"task_x", "task_y", "early", "at", "distance", "loss"}
    assert {f"train/{name}" for name in terms} <= set(report["curves"]["student/distill"][0])
    assert {"train/task_x", "train/task_y", "train/early"} <= set(report["curves"]["teacher"][0])


def test_a_hook_may_lose_a_tenth_of_the_distance(report: dict[str, Any]) -> None:
    before, after = (steps(report)[name]["val/distance"] for name in ("student", "compress/1-svd"))
    assert after <= 1.1 * before


def test_the_auxiliary_head_does_not_ship(result: Result) -> None:
    artifact = open_artifact(result.folder / "student.safetensors", allow=[f"{PACKAGE}.network"])
    assert not [name for name, _ in artifact.model.named_parameters() if name.startswith("early")]
    assert artifact.about["info"]["image_size"] == [16, 16]


def test_the_exported_file_names_its_output_and_predicts_what_the_artifact_does(result: Result) -> None:
    path = result.folder / "export" / "student.onnx"
    assert [output.name for output in onnx.load(path).graph.output] == ["place"]
    images = torch.randn(3, 1, 16, 16)
    model = distill.load(result.folder / "student.safetensors", allow=[f"{PACKAGE}.network"])
    found = onnxruntime.InferenceSession(str(path)).run(None, {"input": images.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), model(images).detach(), rtol=1e-4, atol=1e-4)


def test_the_report_is_in_pixels(result: Result, report: dict[str, Any]) -> None:
    assert (report["monitor"], report["mode"], report["units"]["distance"]) == ("distance", "min", "px")
    page = (result.folder / "report.html").read_text()
    assert "test, px" in page
    assert "lower is better" in page.lower()
    assert page.count("data:image/png;base64,") >= 5


def test_the_same_recipe_again_trains_nothing(result: Result, folder: Path) -> None:
    trained: list[str] = []
    again = run(
        distill.load_recipe(str(folder / "places.yaml")), on_epoch=lambda step, epoch, metrics: trained.append(step)
    )
    assert trained == []
    assert [step.metrics for step in again.steps] == [step.metrics for step in result.steps]


def test_a_loss_that_asks_for_classes_is_refused_by_name(folder: Path) -> None:
    loss = "stages.distill.losses={crd: {student: ['last'], teacher: ['last']}}"
    with pytest.raises(RecipeError, match="at stages.distill: loss 'crd' .*train_labels.*no single class"):
        plan(distill.load_recipe(str(folder / "places.yaml"), [loss]))


def test_a_part_that_the_task_does_not_name_is_refused(folder: Path) -> None:
    taps = "stages.distill.losses.distance.student=[':z', ':y']"
    with pytest.raises(DistillError, match=r"no part ':z'.* There are: :x, :y"):
        plan(distill.load_recipe(str(folder / "places.yaml"), [taps]))


def test_a_plan_says_what_is_kept_and_writes_nothing(result: Result, folder: Path) -> None:
    def files() -> list[Path]:
        return sorted((folder / "runs").rglob("*"))

    before = files()
    steps = plan(distill.load_recipe(str(folder / "places.yaml"), ["compress.quantize.bits=4"]))
    assert files() == before
    assert {step.name: step.kept for step in steps} == {
        **dict.fromkeys(["teacher", "baseline", "student/hint", "student/distill", "compress/1-svd"], True),
        **dict.fromkeys(["compress/2-quantize", "compress/3-encode", "export/onnx"], False),
    }
    made = {step.step: step for step in result.steps}
    assert [step.epochs for step in steps] == [6, 7, 1, 6, 1, 0, 0, 0]
    assert (steps[3].params, steps[3].macs) == (made["student"].params, made["student"].macs)


def test_a_plan_estimates_the_time_of_what_is_new(result: Result, folder: Path) -> None:
    steps = {s.name: s for s in plan(distill.load_recipe(str(folder / "places.yaml"), ["seed=2"]))}
    assert not any(step.kept for step in steps.values())
    assert all(steps[name].seconds > 0 for name in ("teacher", "baseline", "student/distill", "compress/1-svd"))
    assert steps["compress/2-quantize"].seconds is None
