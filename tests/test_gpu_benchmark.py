"""The benchmark of GPUs, as far as it can be tried without one."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks._results import read
from benchmarks._rounds import IDENTITY, Race, about, race, row
from benchmarks._ways import Run
from benchmarks._work import Workload

WORK = Workload("resnet8x4", "resnet8x4", (("layer1", "layer1"),), batch=10, steps=2)


def run(seconds: float) -> Run:
    return Run(seconds, startup=1.0, loss=0.5)


def test_rows_are_medians_and_ratios_are_taken_round_by_round() -> None:
    found = row(WORK, Race({"ours": [run(1), run(2), run(4)], "bare": [run(2), run(2), run(2)]}))
    assert found["ways"]["ours"]["images_per_second"] == [7.5, 10, 15]
    assert found["times_as_fast"] == {"ours / bare": [0.75, 1, 1.5]}


def test_ways_take_turns_and_one_that_fails_is_named() -> None:
    turns = []

    def way(name: str, error: Exception | None = None) -> Any:
        def measured(_: Workload) -> Run:
            turns.append(name)
            if error:
                raise error
            return run(1)

        return measured

    found = race({"ours": (way("ours"), WORK), "bare": (way("bare", RuntimeError("no\nmemory")), WORK)}, 2)
    assert turns == ["ours", "bare", "ours"]
    assert row(WORK, found)["failed"] == {"bare": "RuntimeError: no"}
    assert "RuntimeError: no" in gpu.tables([row(WORK, found)])["gpu"]


def test_what_is_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every, file = gpu.entries("cpu", tiny=False), tmp_path / "gpu.jsonl"
    assert len({tuple(about(entry.work).items()) for entry in every}) == len(every)
    monkeypatch.setattr(gpu, "measure", lambda entry, rounds: row(entry.work, Race({"ours": [run(1)]})))
    clock = iter(range(0, 10_000, 40))  # of which a row takes 40 to 80 seconds
    monkeypatch.setattr(gpu.time, "perf_counter", lambda: next(clock))
    left = gpu.measure_all(every, file, rounds=1, seconds=300)
    assert 0 < left < len(every)
    todo = gpu.missing(every, read(file, IDENTITY), again=False)
    assert todo == every[-left:]
    assert gpu.measure_all(todo, file, rounds=1, seconds=1e6) == 0
    assert gpu.missing(every, read(file, IDENTITY), again=False) == []


def test_rows_in_which_a_way_failed_can_be_measured_again() -> None:
    first, *_ = every = gpu.entries("cpu", tiny=False)
    failed = [row(first.work, Race({"ours": [run(1)]}, failed={"bare": "OutOfMemoryError: too much"}))]
    assert first not in gpu.missing(every, failed, again=False)
    assert first in gpu.missing(every, failed, again=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "finds no CUDA device" in done.stderr
    assert "--device cpu --tiny" in done.stderr
