"""Sweeps of objectives that stand for runs."""

import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from distill.errors import DistillError
from distill.sweep import sweep
from distill.sweep.work import Report

COMMAND = ["${env}", "python", "train.py", "recipe=smoke", "${args_no_hyphens}"]
RATES = {"optimizer.lr": {"distribution": "log_uniform_values", "min": 0.001, "max": 1.0}}
GRID = {"optimizer.lr": {"values": [0.1, 0.2, 0.3]}, "stages.hint.epochs": {"min": 1, "max": 2}}


TINY = """
task: {name: classification}
data: {name: digits, limit: 200}
teacher: {name: "tests.nets:ConvNet", epochs: 1}
student: {name: "tests.nets:ConvNet"}
baseline: false
stages:
  labels: {epochs: 1}
  distill: {epochs: 1, losses: {kd: {}}}
compress:
  quantize: {}
tracking: {mode: disabled}
"""


def bowl(name: str, overrides: Sequence[str], report: Report) -> Mapping[str, float]:
    """Stands for a run: best at a learning rate of 0.1."""
    return {"val/accuracy": 1 - abs(math.log10(setting(overrides, "optimizer.lr") / 0.1)), "bytes": 100.0}


def climb(name: str, overrides: Sequence[str], report: Report) -> Mapping[str, float]:
    """Better every epoch."""
    metrics = bowl(name, overrides, report)
    for epoch in range(1, 5):
        report(epoch, {"val/accuracy": metrics["val/accuracy"] - 1 / epoch})
    return metrics


def fussy(name: str, overrides: Sequence[str], report: Report) -> Mapping[str, float]:
    if setting(overrides, "optimizer.lr") == 0.2:
        raise DistillError("diverged")
    return bowl(name, overrides, report)


def interrupted(name: str, overrides: Sequence[str], report: Report) -> Mapping[str, float]:
    if setting(overrides, "optimizer.lr") == 0.2:
        raise KeyboardInterrupt
    return bowl(name, overrides, report)


def slow(name: str, overrides: Sequence[str], report: Report) -> Mapping[str, float]:
    time.sleep(60)
    return bowl(name, overrides, report)


def combined(name: str, overrides: Sequence[str], report: Report) -> Mapping[str, float]:
    """A trial that ends only when two processes have begun one: a quick worker cannot take them all."""
    folder = Path(dict(word.split("=", 1) for word in overrides)["output"]) / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    return bowl(name, overrides, report)


def setting(overrides: Sequence[str], key: str) -> float:
    return float(dict(word.split("=", 1) for word in overrides)[key])


def write(folder: Path, **changes: object) -> Path:
    tree = {
        "program": "train.py",
        "method": "random",
        "metric": {"name": "val/accuracy", "goal": "maximize"},
        "parameters": RATES,
        "command": COMMAND,
    }
    file = folder / "file.yaml"
    file.write_text(yaml.safe_dump({**tree, **changes}, sort_keys=False))
    return file


def go(folder: Path, trials: int | None = None, jobs: int = 1, objective=bowl, **changes: object):
    return sweep(
        write(folder, **changes), trials=trials, jobs=jobs, overrides=[f"output={folder / 'runs'}"], objective=objective
    )


def chosen(result, key: str = "optimizer.lr") -> list[float]:
    return [trial.params[key] for trial in result.trials]
