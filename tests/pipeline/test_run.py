"""The whole line on real input, once; then everything that is done with what it leaves behind."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import distill
from distill.__main__ import main
from distill.artifact.step import Step
from distill.data.digits import Digits
from distill.errors import ExportError
from distill.measure import latency
from distill.models.cost import params
from distill.pipeline.run import Result, run

STEPS = ["teacher", "baseline", "student", "compress/1-svd", "compress/2-quantize", "compress/3-encode", "export/onnx"]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def smoke(pool: Path, *overrides: str) -> tuple[Result, list[str]]:
    """Runs the smoke recipe; answers its result and the names of the steps that were trained."""
    trained: list[str] = []
    recipe = distill.load_recipe("smoke", [f"output={pool}", *overrides])
    return run(recipe, on_epoch=lambda step, epoch, metrics: trained.append(step)), trained


def without_seconds(result: Result) -> list[Step]:
    return [replace(step, seconds=0.0) for step in result.steps]


@pytest.fixture(scope="module")
def result(pool: Path) -> Result:
    return smoke(pool)[0]


@pytest.fixture(scope="module")
def report(result: Result) -> dict[str, Any]:
    return json.loads((result.folder / "report.json").read_text())


def test_every_step_is_reported(report: dict[str, Any]) -> None:
    assert [step["step"] for step in report["steps"]] == STEPS
    for step in report["steps"]:
        assert set(step["metrics"]) == {"val/accuracy", "test/accuracy"}
        assert set(step["latency_ms"]) == {"batch1", "batch32"}
        assert min(step["params"], step["macs"], step["bytes"]) > 0


def test_the_last_network_is_timed_as_the_file_that_ships(report: dict[str, Any]) -> None:
    latencies = {step["step"]: step["latency_ms"] for step in report["steps"]}
    last = [name for name in latencies if name.startswith("compress/")][-1]
    assert latencies["export/onnx"] == latencies[last]
    assert latencies[last] != latencies["teacher"]


def test_each_hook_makes_it_smaller(report: dict[str, Any]) -> None:
    sizes = [step["bytes"] for step in report["steps"][2:6]]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 4


def test_encoding_changes_no_answer(report: dict[str, Any]) -> None:
    quantized, encoded, exported = report["steps"][4:]
    assert quantized["metrics"] == encoded["metrics"] == exported["metrics"]


def test_the_artifact_is_what_the_table_says(result: Result, report: dict[str, Any]) -> None:
    file = result.folder / "student.safetensors"
    model = distill.load(file)
    test = Digits(0, limit=400).test_dataloader()
    right = sum(int((model(batch.inputs).argmax(1) == batch.labels).sum()) for batch in test)
    total = sum(len(batch.labels) for batch in test)
    last = report["steps"][-2]
    assert right / total == pytest.approx(last["metrics"]["test/accuracy"])
    assert params(model) == last["params"]
    assert file.stat().st_size == last["bytes"]


def test_the_test_split_is_counted_whole(report: dict[str, Any]) -> None:
    assert sum(map(sum, report["figures"]["confusion"])) == len(Digits(0).test)


def test_nothing_unfinished_is_left(result: Result) -> None:
    left = [p.name for p in result.folder.rglob("*") if p.suffix in (".part", ".ckpt", ".copy")]
    assert left == []
    assert {"recipe.yaml", "report.json", "report.html", "student.safetensors"} <= {
        p.name for p in result.folder.iterdir()
    }


def test_the_same_recipe_again_trains_nothing(pool: Path, result: Result) -> None:
    again, trained = smoke(pool)
    assert trained == []
    assert without_seconds(again) == without_seconds(result)


def test_a_change_of_compress_keeps_the_trained_student(pool: Path, result: Result) -> None:
    changed, trained = smoke(pool, "compress={quantize: {bits: 4}}", "export={}")
    assert trained == []
    assert changed.folder != result.folder
    assert [step.metrics for step in changed.steps[:3]] == [step.metrics for step in result.steps[:3]]


def test_a_change_of_the_student_keeps_the_teacher(pool: Path, result: Result) -> None:
    overrides = ("stages.distill.losses.kd.temperature=2", "compress={}", "export={}")
    _, trained = smoke(pool, *overrides)
    assert set(trained) == {"student/distill"}


def test_a_teacher_from_a_file(pool: Path, result: Result) -> None:
    weights = result.folder / "teacher/network.safetensors"
    given, trained = smoke(
        pool, f"teacher={{name: resnet20, weights: {weights}}}", "compress={}", "export={}", "baseline=false"
    )
    assert "teacher" not in trained
    assert given.steps[0].metrics == result.steps[0].metrics


def test_an_export_that_fails_loses_neither_the_others_nor_the_report(pool: Path) -> None:
    asked = ("export={onnx: {tolerance: 0}, runtime: {}}", "baseline=false")
    with pytest.raises(ExportError, match=r"student\.onnx differs from PyTorch .* raise export\.onnx\.tolerance"):
        smoke(pool, *asked)
    (report,) = [file for file in pool.rglob("report.json") if "export/runtime" in file.read_text()]
    assert [step["step"] for step in json.loads(report.read_text())["steps"]][-1] == "export/runtime"
    assert not [*report.parent.glob("export/student.onnx*")]


def test_supervised_training_alone_is_a_recipe_too(pool: Path) -> None:
    overrides = ("teacher=null", "stages={only: {epochs: 1}}", "compress={}", "export={}")
    result, trained = smoke(pool, *overrides)
    assert trained == ["student/only"]
    assert [step.step for step in result.steps] == ["student"]


def test_without_a_validation_split_the_last_epoch_counts(pool: Path) -> None:
    result, _ = smoke(pool, "data.val=0", "teacher=null", "stages={only: {epochs: 1}}", "export={}")
    assert all(set(step.metrics) == {"test/accuracy"} for step in result.steps)


class TestCommands:
    @pytest.fixture
    def artifact(self, result: Result) -> str:
        return str(result.folder / "student.safetensors")

    def test_evaluate_repeats_the_table(self, artifact: str, report: dict[str, Any], capsys: Any) -> None:
        assert main(["evaluate", artifact]) == 0
        assert f"test/accuracy {report['steps'][-2]['metrics']['test/accuracy']:.4f}" in capsys.readouterr().out

    def test_inspect_shows_how_each_tensor_is_stored(self, artifact: str, capsys: Any) -> None:
        assert main(["inspect", artifact]) == 0
        shown = capsys.readouterr().out
        assert "mobilenet_v1" in shown
        assert "Quantized, " in shown
        assert "context" in shown
        assert "compress/2-quantize" in shown
        rows = [line.split() for line in shown.splitlines() if line.rstrip().endswith("#")]
        sizes = {int(row[-3].replace(",", "")): len(row[-1]) for row in rows}
        assert sizes[max(sizes)] == 20
        assert all(length == round(20 * size / max(sizes)) for size, length in sizes.items())

    def test_export_writes_beside_the_artifact(self, artifact: str, tmp_path: Path, capsys: Any) -> None:
        assert main(["export", artifact, "--to", "onnx", "--output", str(tmp_path)]) == 0
        assert (tmp_path / "student.onnx").is_file()
        assert "differs from the artifact by" in capsys.readouterr().out

    def test_bench_times_it(self, artifact: str, capsys: Any) -> None:
        assert main(["bench", artifact, "--batch-sizes", "1", "--threads", "1"]) == 0
        assert "median ms" in capsys.readouterr().out

    def test_bench_times_several_in_turns(
        self, artifact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        monkeypatch.chdir(tmp_path)
        shutil.copy(artifact, "a.safetensors")
        shutil.copy(artifact, "b.safetensors")
        assert main(["bench", "a.safetensors", "b.safetensors", "--batch-sizes", "1", "2"]) == 0
        _, *rows, note = capsys.readouterr().out.splitlines()
        assert [row.split()[:2] for row in rows] == [[f"{name}.safetensors", size] for size in "12" for name in "ab"]
        assert note.startswith("latency: median on one thread, all networks in turns")

    @pytest.mark.parametrize(("waited", "quartile", "said"), [(0.02, 1.0, []), (0.35, 1.5, ["overlap", "35 %"])])
    def test_bench_marks_what_is_as_fast_and_says_when_the_machine_was_busy(
        self,
        waited: float,
        quartile: float,
        said: list[str],
        artifact: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: Any,
    ) -> None:
        first, second = latency.Timing(1.0, 0.9, quartile, 9), latency.Timing(2.0, 1.4, 2.1, 9)
        race = latency.Race({"0": {"batch1": first}, "1": {"batch1": second}}, waited)
        monkeypatch.setattr(latency, "round_robin", lambda *_, **__: race)
        assert main(["bench", artifact, artifact, "--batch-sizes", "1"]) == 0  # one file, against itself
        _, *rows, note = capsys.readouterr().out.splitlines()
        assert [row.split()[2] for row in rows] == ["1.000", f"{latency.SAME_SPEED if said else ''}2.000"]
        assert [word for word in ("overlap", "35 %") if word in note] == said

    def test_a_truncated_artifact_is_refused_by_name(self, artifact: str, tmp_path: Path, capsys: Any) -> None:
        cut = tmp_path / "cut.safetensors"
        cut.write_bytes(Path(artifact).read_bytes()[:-100])
        assert main(["evaluate", str(cut)]) == 2
        assert "cut.safetensors" in capsys.readouterr().err

    @pytest.mark.parametrize("arguments", [["export", "X", "--to", "onxx"], ["inspect", "nowhere.safetensors"]])
    def test_mistakes_are_named(self, arguments: list[str], artifact: str, capsys: Any) -> None:
        assert main([artifact if a == "X" else a for a in arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_loaded_student_runs_on_its_own(result: Result) -> None:
    model = distill.load(result.folder / "student.safetensors")
    assert model(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
