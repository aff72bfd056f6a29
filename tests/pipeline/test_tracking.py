"""What is logged can be read back from a real offline run; one folder is one run."""

import json
from pathlib import Path

import pytest
import torch
import wandb

from distill.pipeline.tracking import Tracker, headline
from tests.pipeline.offline import CONFIG, STEPS, Recorded, segments, whole_run

# --- what is logged


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("run")
    whole_run(folder, project="nets", group="pairs", tags=["a", "b"])
    (run,) = segments(folder)
    return run


def test_the_recipe_and_where_it_ran_are_the_config(recorded: Recorded) -> None:
    assert {key: recorded.config[key] for key in CONFIG} == CONFIG
    assert recorded.config["provenance"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert (recorded.run.display_name, recorded.run.project, recorded.run.run_group) == ("smoke/1a2b", "nets", "pairs")
    assert list(recorded.run.tags) == ["a", "b"]


def test_each_trainer_has_an_axis_of_its_own(recorded: Recorded) -> None:
    for prefix in ("teacher", "student/distill"):
        assert recorded.axes[f"{prefix}/*"] == f"{prefix}/step"
        for metric in ("train/kd", "val/accuracy", "epoch"):
            rows = [row for row in recorded.history if f"{prefix}/{metric}" in row]
            assert sorted({row[f"{prefix}/step"] for row in rows}) == [3, 7]  # two epochs of four steps
    assert not any("trainer/global_step" in row for row in recorded.history)


def test_a_wandb_sweep_finds_the_students_metric_epoch_by_epoch_and_the_final_one_in_the_summary(
    recorded: Recorded,
) -> None:
    plain = [row["val/accuracy"] for row in recorded.history if "val/accuracy" in row]
    assert plain == [0.5, 0.5]  # the student's two epochs, not the teacher's
    assert recorded.summary["val/accuracy"] == 0.8
    assert recorded.summary["bytes"] == 120


def test_the_step_table_and_its_numbers(recorded: Recorded) -> None:
    table = recorded.table("steps")
    assert table["columns"][:4] == ["step", "params", "macs", "bytes"]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["step"] for row in rows] == ["teacher", "compress/1-quantize", "export/onnx"]
    assert rows[2]["test/accuracy"] is None
    assert rows[1]["latency_ms/batch1"] == 0.2
    assert recorded.summary["compress/1-quantize/test/accuracy"] == 0.79
    assert recorded.summary["teacher/params"] == 900


def test_the_confusion_matrix_names_its_classes(recorded: Recorded) -> None:
    table = recorded.table("confusion_table")
    assert table["columns"] == ["Actual", "Predicted", "nPredictions"]
    assert table["data"] == [["cat", "cat", 5], ["dog", "dog", 4], ["cat", "dog", 1]]


def test_the_artifact_is_a_model(recorded: Recorded) -> None:
    artifact = recorded.artifacts["smoke-student"]
    assert (artifact.type, json.loads(artifact.metadata)) == ("model", {"bytes": 7})
    (entry,) = artifact.manifest.contents
    assert (entry.path, entry.size) == ("student.safetensors", 7)
    assert Path(entry.local_path).read_bytes() == b"weights"


def test_neither_code_nor_terminal_is_captured(recorded: Recorded) -> None:
    files = {path.name for path in recorded.segment.rglob("*") if path.is_file()}
    assert not files & {"output.log", "diff.patch"}
    assert not [name for name in files if name.endswith(".py")]
    assert recorded.exit_code == 0


# --- one folder, one run


def test_a_run_that_goes_on_has_all_in_one_folder(tmp_path: Path) -> None:
    with Tracker(tmp_path, name="a", config=CONFIG) as tracker:
        tracker.log("teacher", {"train/loss": 2.0}, 3)
        tracker.log("teacher", {"train/loss": 1.5}, 7)
        tracker.finish(exit_code=1)  # as Ctrl-C ends it
    (killed,) = segments(tmp_path)
    assert killed.exit_code == 1
    with (tmp_path / "wandb" / "history.jsonl").open("a") as lines:
        lines.write('\n["teacher", {"train/lo')  # a kill while the next row was written
    with Tracker(tmp_path, name="a", config=CONFIG) as tracker:
        tracker.log("teacher", {"train/loss": 1.0}, 7)  # that epoch's checkpoint was not written, so it is repeated
        tracker.log("student/hint", {"train/loss": 3.0}, 3)
    (resumed,) = segments(tmp_path)
    assert killed.run.run_id == resumed.run.run_id == (tmp_path / "wandb/run-id").read_text()
    losses = [row.get("teacher/train/loss", row.get("student/hint/train/loss")) for row in resumed.history]
    assert losses == [2.0, 1.5, 1.0, 3.0]
    with Tracker(tmp_path, name="a", config=CONFIG):
        pass
    (again,) = segments(tmp_path)
    assert [row.get("teacher/train/loss") for row in again.history] == [2.0, 1.0, None]
    assert again.axes["student/hint/*"] == "student/hint/step"


def test_what_was_uploaded_is_left_alone(tmp_path: Path) -> None:
    for _ in range(2):
        with Tracker(tmp_path, name="a", config=CONFIG):
            pass
        (uploaded,) = [path for path in (tmp_path / "wandb").glob("offline-run-*") if not list(path.glob("*.synced"))]
        (uploaded / "run.wandb.synced").touch()
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2


def test_two_runs_at_once_in_one_folder_are_two(tmp_path: Path) -> None:
    with Tracker(tmp_path, name="a", config=CONFIG), Tracker(tmp_path, name="a", config=CONFIG) as second:
        second.log("teacher", {"train/loss": 2.0}, 3)
    assert len({run.run.run_id for run in segments(tmp_path)}) == 2


def test_under_an_agent_the_run_is_the_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SWEEP_ID": "sw33p", "RUN_ID": "agents1", "PROJECT": "theirs", "MODE": "offline"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    wandb.teardown()  # an agent starts each run in a new process; wandb reads its environment once
    with Tracker(tmp_path, name="a", config=CONFIG, project="mine") as tracker:
        tracker.steps(STEPS)
    (run,) = segments(tmp_path)
    assert (run.run.run_id, run.run.sweep_id, run.run.project) == ("agents1", "sw33p", "theirs")
    assert run.summary["val/accuracy"] == 0.8


def test_runs_go_in_parallel(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    trackers = [Tracker(folder, name=folder.name, config={"which": folder.name}) for folder in folders]
    for tracker, folder in zip(trackers, folders, strict=True):
        tracker.log("student/hint", {"train/kd": float(len(folder.name))}, 1)
    for tracker in trackers:
        tracker.finish()
    runs = [segments(folder)[0] for folder in folders]
    assert [run.config["which"] for run in runs] == ["a", "b"]
    assert all(len(run.history) == 1 for run in runs)


def test_the_headline_is_the_last_network_that_is_not_an_export() -> None:
    assert headline(STEPS) == {
        **{"params": 100, "macs": 1000, "bytes": 120, "latency_ms/batch1": 0.2},
        **{"val/accuracy": 0.8, "test/accuracy": 0.79},
    }
