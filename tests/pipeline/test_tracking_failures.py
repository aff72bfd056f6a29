"""Nothing that goes wrong with W&B stops a run."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb

from distill.pipeline import provenance as origin
from distill.pipeline.tracking import Tracker
from tests.pipeline.offline import CONFIG, STEPS, said, segments


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
