"""Finished steps, checkpoints, caches and sweeps: their files changed, cut, emptied, removed or swapped.

Without a named error the step, the trained network, the cached outputs or the trials are those of an undamaged folder.
"""

import logging
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor, nn

from benchmarks.faults._faults import Faults, WrongResultError
from benchmarks.faults._mutations import mutated_bytes
from distill.artifact import Artifact
from distill.artifact.step import Step
from distill.data.digits import Digits
from distill.pipeline.step_store import Finished, Steps
from distill.recipe.loading import load
from distill.recipe.schema import Optimizer, Schedule, Stage
from distill.sweep import sweep
from distill.tasks.classification import Classification
from distill.training.cache import cached, set_views
from distill.training.distiller import Distiller
from distill.training.fit import fit
from distill.training.teacher import Teacher
from students import student

ENTRY = {"name": "lenet5", "num_classes": 10, "channels": 1}
STEPS = ("teacher", "student/one", "compress/1-quantize")
TAPS = ["0", ""]
RATES = {"optimizer.lr": {"values": [0.1, 0.2, 0.3]}}
FOREIGN = (b"", b"{", b'{"accuracy": 1}', b"[]", b"\xff\xfe", b"null", b'{"key": {}}', b"[" * 100_000)


class State(NamedTuple):
    """Whole folders by subject, and what is right."""

    whole: Path
    case: Path
    right: dict[str, Any]


def prepare(folder: Path) -> State:
    """One undamaged folder of each subject."""
    torch.set_num_threads(1)
    logging.getLogger("distill").addHandler(logging.NullHandler())
    logging.getLogger("distill").propagate = False
    whole, case = folder / "whole", folder / "case"
    shutil.rmtree(folder, ignore_errors=True)
    # A checkpoint and a cache know their folders by name: all are made where the cases will be.
    right = {subject: use(case / subject) for subject, use in SUBJECTS.items()}
    for interrupted in ("checkpoint",):
        shutil.rmtree(case / interrupted)
        train(case / interrupted, epochs=2)
    case.rename(whole)
    return State(whole, case, right)


def valid(state: State) -> None:
    """Every subject, undamaged."""
    for subject in SUBJECTS:
        attempt(state, f"{subject}/none", Random(0))


def attempt(state: State, kind: str, random: Random) -> None:
    """Damage a copy of a subject's folder, and use it."""
    subject, _, damage = kind.partition("/")
    folder = state.case / subject
    shutil.rmtree(state.case, ignore_errors=True)
    shutil.copytree(state.whole / subject, folder)
    DAMAGES[damage](folder, random)
    if not equal(SUBJECTS[subject](folder), state.right[subject]):
        raise WrongResultError(f"{subject} after {damage}")


def equal(one: Any, other: Any) -> bool:
    """Of nests of tensors and plain data."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def finished(pool: Path, run: str = "one") -> dict[str, Any]:
    """The steps of a run, made or found."""
    done: dict[str, Any] = {}
    for seed, name in enumerate(STEPS):

        def make(_: Path, seed: int = seed) -> tuple[Artifact, list[dict[str, float]]]:
            torch.manual_seed(seed)
            model = student.find("lenet5")(num_classes=10, channels=1).eval()
            return Artifact(model, network=ENTRY), [{"epoch": 1, "val/accuracy": 0.5}]

        def describe(_: Artifact, size: int, seconds: float, name: str = name) -> Step:
            return Step(name, 1, 2, size, {"val/accuracy": 0.5}, {}, 0.0)

        step: Finished = Steps(pool / run, pool).do(name, f"key-{seed}", make, describe)
        done[name] = [dict(step.artifact.model.state_dict()), step.step.to_json(), step.curve]
    return done


def train(folder: Path, epochs: int = 3) -> dict[str, Tensor]:
    """The weights after three epochs, or a training that is stopped after so many."""

    class StoppedError(Exception):
        pass

    def on_epoch(_title: str, epoch: int, _metrics: dict[str, float]) -> None:
        if epoch > epochs:
            raise StoppedError

    torch.manual_seed(0)
    data = Digits(0, limit=40, crop=1, batch_size=20)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    stage = Stage(epochs=3, keep="best")
    parts = {"optimizer": Optimizer(), "schedule": Schedule(), "example": data.calibration(8)[0], "injectable": {}}
    module = Distiller(net, None, Classification(data.info), stage, **parts)
    settings = {"accelerator": "cpu", "devices": 1}
    try:
        return dict(fit(module, data, folder, title="t", settings=settings, on_epoch=on_epoch).student.state_dict())
    except StoppedError:
        return {}


def outputs(folder: Path) -> list[dict[str, Tensor]]:
    """A cached teacher's outputs."""
    data = Digits(0, limit=40, crop=1, batch_size=20)
    recipe = load("smoke", [f"cache={{views: 2, dtype: float32, folder: {folder}}}", "data.limit=40"])
    set_views(data, 2)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10))
    teacher = cached(Teacher(net, TAPS), recipe, data, {})
    return [{path: output.clone() for path, output in teacher(batch).items()} for batch in data.every_view()]


def trials(folder: Path) -> list[Any]:
    """Parameters and values of a sweep's trials."""
    folder.mkdir(parents=True, exist_ok=True)
    tree = {"method": "grid", "metric": {"name": "val/accuracy", "goal": "maximize"}, "parameters": RATES}
    command = ["train.py", "recipe=smoke", "${args_no_hyphens}"]
    (folder / "file.yaml").write_text(yaml.safe_dump({**tree, "command": command}))
    result = sweep(folder / "file.yaml", overrides=[f"output={folder}"], objective=_objective)
    return [[dict(trial.params), trial.value] for trial in result.trials]


def _objective(_recipe: str, overrides: Any, _report: Any) -> dict[str, float]:
    return {"val/accuracy": float(dict(word.split("=", 1) for word in overrides)["optimizer.lr"])}


SUBJECTS: dict[str, Callable[[Path], Any]] = {
    "step": finished,
    "other_run": lambda pool: finished(pool, "two" if (pool / "one").exists() else "one"),
    "checkpoint": train,
    "cache": outputs,
    "sweep": trials,
}


def _file(folder: Path, random: Random) -> Path:
    """One that the subject's own code reads again."""
    kinds = (".json", ".safetensors", ".ckpt", ".rows", ".checks", ".db")
    return random.choice(sorted(path for path in folder.rglob("*") if path.suffix in kinds))


def _write(change: Callable[[bytes, Random], bytes], folder: Path, random: Random) -> None:
    file = _file(folder, random)
    file.write_bytes(change(file.read_bytes(), random))


def _swap(folder: Path, random: Random) -> None:
    """A valid file of the same kind in another one's place."""
    file = _file(folder, random)
    others = [path for path in sorted(folder.rglob(f"*{file.suffix}")) if path != file]
    if others:
        shutil.copyfile(random.choice(others), file)


def _remove(folder: Path, random: Random) -> None:
    _file(folder, random).unlink()


def _foreign(folder: Path, random: Random) -> None:
    place = folder / random.choice(("zz", "one/zz", "one/teacher/zz"))
    place.mkdir(parents=True, exist_ok=True)
    (place / "metrics.json").write_bytes(random.choice(FOREIGN))


def _become_folder(folder: Path, random: Random) -> None:
    file = _file(folder, random)
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Callable[[Path, Random], None]] = {
    "none": lambda folder, random: None,
    "bytes": partial(_write, mutated_bytes),
    "cut": partial(_write, lambda data, random: data[: random.randrange(len(data))]),
    "empty": partial(_write, lambda data, random: b""),
    "swap": _swap,
    "remove": _remove,
    "foreign": _foreign,
    "folder": _become_folder,
}

FAULTS = Faults(
    kinds={
        f"{subject}/{damage}": (4.0 if damage == "bytes" else 1.0)
        * (0.25 if subject in ("checkpoint", "sweep") else 1.0)
        for subject in SUBJECTS
        for damage in DAMAGES
        if damage != "none" and not (damage == "foreign" and subject in ("checkpoint", "sweep", "cache"))
    },
    count=2000,
    prepare=prepare,
    valid=valid,
    attempt=attempt,
)
