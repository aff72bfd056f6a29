"""A finished step is kept in the run's folder and never done twice.

A step's key covers all that determines its result. A step of that key that any run under the same output folder has
finished is copied; one that was killed half-way finds its checkpoints where it left them.
"""

import json
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from distill.artifact import Artifact, open_artifact
from distill.artifact.step import Step
from distill.training.fit import Curve
from distill.training.processes import is_first, wait_for_all

NETWORK, METRICS = "network.safetensors", "metrics.json"


@dataclass(frozen=True)
class Finished:
    """A step that is done: its network as read back from disk, its row of the report, its training curve."""

    artifact: Artifact
    step: Step
    curve: Curve
    key: str
    reused: bool
    """Whether it was finished before."""


Make = Callable[[Path], tuple[Artifact, Curve]]
Describe = Callable[[Artifact, int, float], Step]


class Steps:
    """The steps of one run.

    Args:
        folder: the run's folder.
        pool: the folder of all runs, where finished steps are looked for.
        allow: modules outside this package whose networks may be loaded.
    """

    def __init__(self, folder: Path, pool: Path, allow: Collection[str] = ()) -> None:
        self.folder, self.pool, self.allow = folder, pool, allow
        folder.mkdir(parents=True, exist_ok=True)

    def do(self, name: str, key: str, make: Make, describe: Describe) -> Finished:
        """The step as it was finished before, or made now.

        Args:
            name: the step's folder, for example ``student/hint``.
            key: names all that determines the result.
            make: does the work, given a folder for its checkpoints.
            describe: the step's row, given what was made, its bytes on disk and the seconds it took.
        """
        with self._alone(key):
            reused = self._reuse(name, key)
            if not reused:
                self._make(name, key, make, describe)
        wait_for_all()
        return self._read(name, key, reused)

    def _make(self, name: str, key: str, make: Make, describe: Describe) -> None:
        part = self._prepared(name, key)
        started = time.perf_counter()
        artifact, curve = make(part)
        seconds = time.perf_counter() - started
        size = artifact.save(part / NETWORK) if is_first() else artifact.nbytes()
        step = describe(artifact, size, seconds)
        if is_first():
            (part / METRICS).write_text(json.dumps({"key": key, "step": step.to_json(), "curve": curve}, indent=1))
            for leftover in (part / key, *part.glob("*.ckpt")):
                leftover.unlink()
            self._settle(part, name)

    def _prepared(self, name: str, key: str) -> Path:
        """The folder of a step in the making, with the checkpoints of this very step or with none."""
        part = self.folder / f"{name}.part"
        if is_first() and not (part / key).exists():
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True, exist_ok=True)
            (part / key).touch()
        wait_for_all()
        return part

    def _settle(self, part: Path, name: str) -> None:
        final = self.folder / name
        shutil.rmtree(final, ignore_errors=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        part.replace(final)

    def _reuse(self, name: str, key: str) -> bool:
        for folder in self._finished(name):
            if json.loads((folder / METRICS).read_text())["key"] == key:
                if folder != self.folder / name and is_first():
                    copy = self.folder / f"{name}.copy"
                    shutil.copytree(folder, copy, dirs_exist_ok=True)
                    self._settle(copy, name)
                return True
        return False

    def _finished(self, name: str) -> Iterator[Path]:
        if (self.folder / name / METRICS).is_file():
            yield self.folder / name
        for path in sorted(self.pool.rglob(METRICS)):
            if path.parent != self.folder / name and path.parent.suffix not in (".part", ".copy"):
                yield path.parent

    def _read(self, name: str, key: str, reused: bool) -> Finished:
        record = json.loads((self.folder / name / METRICS).read_text())
        artifact = open_artifact(self.folder / name / NETWORK, allow=self.allow)
        return Finished(artifact, Step.from_json(record["step"]), record["curve"], key, reused)

    @contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        """Runs that share a step, as the trials of a sweep share a teacher, wait for the one that makes it."""
        locks = self.pool / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / key) if is_first() else nullcontext():
            yield
