"""Who is told that other processes take the cores."""

import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl
import torch

from distill.training import busy_machine
from distill.training.busy_machine import BusyMachine, seconds_of_threads


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this system does not count")
def test_seconds_of_threads_are_those_that_the_process_computed() -> None:
    before, clock = seconds_of_threads(), time.process_time()
    while time.process_time() - clock < 0.2:
        pass
    computed = seconds_of_threads()[0] - before[0]
    assert computed == pytest.approx(time.process_time() - clock, rel=0.2)


def test_a_system_that_does_not_count_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy_machine, "THREADS", tmp_path)
    assert seconds_of_threads() == (0, 0)


def epochs(monkeypatch: pytest.MonkeyPatch, waited: float, *, threads: int = 2, device: str = "cpu") -> None:
    """Two epochs whose threads waited for so many of ten seconds."""
    counts = iter([(5.0, 1.0), (15.0 - waited, 1.0 + waited)] * 2)
    monkeypatch.setattr(busy_machine, "seconds_of_threads", lambda: next(counts))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(BusyMachine, "said", False)
    trainer = Mock(spec=pl.Trainer, strategy=Mock(root_device=torch.device(device)))
    callback, module = BusyMachine(), pl.LightningModule()
    for _ in range(2):
        callback.on_train_epoch_start(trainer, module)
        callback.on_train_epoch_end(trainer, module)


def test_threads_that_wait_for_others_are_named_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs(monkeypatch, 3)
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("for 30 % of the time the 2 threads waited") == 1
    assert "OMP_NUM_THREADS=1" in said


@pytest.mark.parametrize(
    "case", [{"waited": 1}, {"waited": 25}, {"waited": 5, "threads": 1}, {"waited": 5, "device": "meta"}]
)
def test_little_waiting_threads_that_ended_one_thread_and_gpus_are_no_matter(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs(monkeypatch, **case)
    assert "waited" not in capsys.readouterr().out
