"""Tracking: what is logged can be read back from a real offline run, and nothing that goes wrong reaches the run."""

import json
import logging
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import wandb
from torch.utils.data import DataLoader
from wandb.proto import wandb_internal_pb2 as messages

from distill.artifact.step import Step
from distill.pipeline import provenance as origin
from distill.pipeline.provenance import provenance
from distill.pipeline.tracking import Tracker, headline

CONFIG = {"seed": 3, "stages": {"distill": {"epochs": 2, "losses": {"kd": {"temperature": 4.0}}}}}
STEPS = (
    Step("teacher", 900, 9000, 3600, {"val/accuracy": 0.9, "test/accuracy": 0.89}, {"batch1": 0.5}, 10.0),
    Step("compress/1-quantize", 100, 1000, 120, {"val/accuracy": 0.8, "test/accuracy": 0.79}, {"batch1": 0.2}, 1.0),
    Step("export/onnx", 100, 1000, 420, {"val/accuracy": 0.8001}, {"batch1": 0.1}, 0.5),
)


@pytest.fixture(autouse=True)
def no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


class Line(pl.LightningModule):
    """One weight: enough to make a Trainer log."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        loss = self.layer(batch).square().mean()
        self.log("train/kd", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: torch.Tensor, _: int) -> None:
        self.log("val/accuracy", 0.5)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(tracker: Tracker, prefix: str) -> None:
    data = DataLoader(torch.randn(8, 1), batch_size=2)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", logger=tracker.logger(prefix), **quiet)
    trainer.fit(Line(), data, data)


def whole_run(folder: Path, **settings: Any) -> None:
    artifact = folder / "student.safetensors"
    artifact.write_bytes(b"weights")
    with Tracker(folder, name="smoke/1a2b", config=CONFIG, **settings) as tracker:
        fit(tracker, "teacher")
        fit(tracker, "student/distill")
        tracker.steps(STEPS)
        tracker.confusion([[5, 1], [0, 4]], ["cat", "dog"])
        tracker.artifact(artifact, "smoke/student", {"bytes": 7})


class Recorded:
    """An offline run as W&B wrote it: the only reader that W&B ships is its own uploader."""

    def __init__(self, segment: Path) -> None:
        self.run: Any = None
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.artifacts: dict[str, Any] = {}
        self.axes: dict[str, str] = {}
        self.exit_code: int | None = None
        self.segment = segment
        for record in records(next(segment.glob("*.wandb")).read_bytes()):
            getattr(self, f"_{record.WhichOneof('record_type')}", lambda _: None)(record)

    def _run(self, record: Any) -> None:
        self.run = record.run
        self._update(self.config, record.run.config.update)

    def _summary(self, record: Any) -> None:
        self._update(self.summary, record.summary.update)

    def _history(self, record: Any) -> None:
        self.history.append({})
        self._update(self.history[-1], record.history.item)

    def _artifact(self, record: Any) -> None:
        self.artifacts[record.artifact.name] = record.artifact

    def _metric(self, record: Any) -> None:
        self.axes[record.metric.glob_name or record.metric.name] = record.metric.step_metric

    def _exit(self, record: Any) -> None:
        self.exit_code = record.exit.exit_code

    @staticmethod
    def _update(target: dict[str, Any], items: Any) -> None:
        for item in items:
            target[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)

    def table(self, key: str) -> Mapping[str, Any]:
        path = next(row[f"{key}.path"] for row in self.history if f"{key}.path" in row)
        return json.loads((self.segment / "files" / path).read_text())


def records(data: bytes) -> Iterator[Any]:
    """LevelDB's log format after 7 bytes of header: blocks of 32 KiB; checksum, length and kind before each piece."""
    position, whole = 7, b""
    while position < len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield messages.Record.FromString(whole)
            whole = b""


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Our own warnings; wandb fills its log with news of itself."""
    ours = [record for record in caplog.records if record.name == "distill.pipeline.tracking"]
    return [record.message for record in ours if record.levelno == logging.WARNING]


def segments(folder: Path) -> list[Recorded]:
    """What the runs of a folder have written, one by one; W&B's own process has written it all only when it ends."""
    wandb.teardown()
    return [Recorded(path) for path in sorted((folder / "wandb").glob("offline-run-*"))]


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


def test_a_run_that_goes_on_keeps_its_id(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Tracker(tmp_path, name="a", config=CONFIG):
        raise KeyboardInterrupt
    with Tracker(tmp_path, name="a", config=CONFIG):
        pass
    killed, resumed = sorted(segments(tmp_path), key=lambda run: run.exit_code == 0)
    assert killed.run.run_id == resumed.run.run_id == (tmp_path / "wandb/run-id").read_text()
    assert killed.exit_code == 1


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


# --- nothing that goes wrong stops a run


def test_disabled_leaves_no_trace(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from distill.pipeline.tracking import Tracker\n"
        f"with Tracker(Path({str(tmp_path)!r}), name='a', config={{}}, mode='disabled') as tracker:\n"
        "    assert tracker.logger('student/hint') is False\n"
        "    tracker.steps([]); tracker.confusion([[1]], ['a']); tracker.artifact(Path('none'), 'a', {})\n"
        "assert 'wandb' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=origin.ROOT)
    assert not list(tmp_path.iterdir())


def test_online_without_an_account_becomes_offline(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Tracker(tmp_path, name="a", config=CONFIG, mode="online") as tracker:
        tracker.log("student/hint", {"train/kd": 1.0}, 1)
    (message,) = said(caplog)
    assert message.startswith("W&B does not start online, the run goes on offline: UsageError: No API key configured")
    assert len(segments(tmp_path)) == 1


def test_online_without_a_network_becomes_offline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("distill.pipeline.tracking.START_SECONDS", 1.0)
    wandb.teardown()
    with Tracker(tmp_path, name="a", config=CONFIG, mode="online") as tracker:
        tracker.log("student/hint", {"train/kd": 1.0}, 1)
    (message,) = said(caplog)
    assert message.startswith("W&B does not start online, the run goes on offline: ")
    (run,) = segments(tmp_path)
    assert run.run.run_id == (tmp_path / "wandb/run-id").read_text()
    assert run.history[0]["student/hint/train/kd"] == 1.0


def test_a_wandb_that_does_not_start_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(wandb, "init", broken)
    with Tracker(tmp_path, name="a", config=CONFIG) as tracker:
        assert tracker.logger("student/hint") is False
        tracker.steps(STEPS)
    assert said(caplog) == ["W&B does not start offline, the run goes on without it: OSError: no space left"]


def test_a_wandb_that_breaks_down_is_let_go_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        dir = "."

        def __getattr__(self, name: str) -> Any:
            raise ConnectionResetError("connection lost\nand more")

    tracker = Tracker(tmp_path, name="a", config=CONFIG)
    logger = tracker.logger("student/hint")
    run, tracker._run = tracker._run, Broken()
    assert logger
    logger.log_metrics({"train/kd": 1.0}, 1)
    tracker.steps(STEPS)
    tracker.confusion([[1]], ["a"])
    tracker.finish()
    run.finish()
    assert said(caplog) == ["W&B failed, the run goes on without it: ConnectionResetError: connection lost"]


def test_only_the_first_process_of_several_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytorch_lightning.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with Tracker(tmp_path, name="a", config=CONFIG) as tracker:
        assert tracker.logger("student/hint") is False
    assert not list(tmp_path.iterdir())


# --- the headline and the provenance


def test_the_headline_is_the_last_network_that_is_not_an_export() -> None:
    assert headline(STEPS) == {
        **{"params": 100, "macs": 1000, "bytes": 120, "latency_ms/batch1": 0.2},
        **{"val/accuracy": 0.8, "test/accuracy": 0.79},
    }


def test_provenance_says_what_is_needed_to_repeat_a_run() -> None:
    facts = provenance()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["versions"]["python"] == sys.version.partition(" ")[0]
    assert facts["command"] == sys.argv
    assert facts["cpu"]
    assert set(facts["versions"]) >= {"distill", "torch", "torchvision", "pytorch-lightning"}


def test_the_commit_and_whether_files_differ_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    monkeypatch.setattr(origin, "ROOT", tmp_path)
    assert (provenance()["commit"], provenance()["dirty"]) == (None, None)
    git("init", "--quiet")
    assert provenance()["commit"] is None
    file = tmp_path / "file"
    file.write_text("a")
    git("add", "file")
    git("commit", "--quiet", "-m", "first")
    git("tag", "v1")
    assert (provenance()["commit"], provenance()["dirty"]) == (git("rev-parse", "HEAD").strip(), False)
    file.write_text("b")
    assert provenance()["dirty"] is True
