"""A finished step is kept in the run's folder and never done twice.

A step's key covers all that determines its result. A step of that key that any run under the same output folder has
finished is copied; one that was killed half-way finds its checkpoints where it left them. A step's record states size
and checksum of its network's file: a step whose files do not fit its record is set aside and done again.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from filelock import FileLock

from distill.artifact import Artifact, open_artifact
from distill.artifact.step import Step
from distill.errors import ArtifactError
from distill.files import sealed
from distill.processes import first_decides, is_first, wait_for_all
from distill.training.fit import Curve

NETWORK, METRICS = "network.safetensors", "metrics.json"
PART, COPY, DAMAGED, CHECKPOINT = ".part", ".copy", ".damaged", ".ckpt"
log = logging.getLogger(__name__)


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
        self._reported: set[Path] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def do(self, name: str, key: str, make: Make, describe: Describe) -> Finished:
        """The step as it was finished before, or made now.

        Args:
            name: the step's folder, for example ``student/hint``.
            key: names all that determines the result.
            make: does the work, given a folder for its checkpoints.
            describe: the step's row, given what was made, its bytes on disk and the seconds it took.
        """
        with self._exclusive(key):
            done = self._reuse(name, key) if is_first() else self._found(name, key)
            reused = first_decides(done is not None)
            if not reused:
                self._make(name, key, make, describe)
        wait_for_all()
        if done and reused:
            return done
        return replace(self._open(self.folder / name, key), reused=reused)

    def _make(self, name: str, key: str, make: Make, describe: Describe) -> None:
        part = self._prepared(name, key)
        started = time.perf_counter()
        artifact, curve = make(part)
        seconds = time.perf_counter() - started
        size = artifact.save(part / NETWORK) if is_first() else artifact.nbytes()
        step = describe(artifact, size, seconds)
        if is_first():
            files = {NETWORK: sealed.digest_of_file(part / NETWORK)}
            sealed.write(part / METRICS, {"key": key, "step": step.to_json(), "curve": curve, "files": files})
            self._settle(part, name)
            _remove_leftovers(self.folder / name, key)

    def _prepared(self, name: str, key: str) -> Path:
        """The folder of a step in the making, with the checkpoints of this very step or with none."""
        part = self.folder / f"{name}{PART}"
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

    def _reuse(self, name: str, key: str) -> Finished | None:
        """A finished step of this key, in this run's folder or copied to it from another run's."""
        own = self.folder / name
        if done := self._finished_at(own, key):
            _remove_leftovers(own, key)
            return done
        for folder in self._others(own):
            if self._finished_at(folder, key):
                copy = self.folder / f"{name}{COPY}"
                shutil.rmtree(copy, ignore_errors=True)
                copy.mkdir(parents=True)
                for file in (NETWORK, METRICS):
                    shutil.copyfile(folder / file, copy / file)
                self._settle(copy, name)
                if done := self._finished_at(own, key):
                    return done
        return None

    def _found(self, name: str, key: str) -> Finished | None:
        """What `_reuse` finds, left where it is: processes of a launcher decide alike before they know each other."""
        own = self.folder / name
        folders = chain([own], self._others(own))
        return next((done for folder in folders if (done := self._finished_at(folder, key))), None)

    def _finished_at(self, folder: Path, key: str) -> Finished | None:
        """The step in ``folder`` if it has this key and its files are what its record says.

        A folder of this run that fails the check is set aside; another run's is left as it is.
        """
        try:
            return self._open(folder, key)
        except FileNotFoundError:
            return None
        except (sealed.DamagedFileError, ArtifactError, OSError) as error:
            self._report_damage(folder, str(error))
            return None

    def _open(self, folder: Path, key: str) -> Finished:
        record = sealed.read(folder / METRICS)
        if record is None or record.get("key") != key:
            raise FileNotFoundError(f"no step {key} in {folder}")
        path = folder / NETWORK
        if not path.is_file():
            raise sealed.DamagedFileError(f"{path} is missing")
        if sealed.digest_of_file(path) != record["files"][NETWORK]:
            raise sealed.DamagedFileError(f"{path} is not the file that the step left")
        artifact = open_artifact(path, allow=self.allow)
        return Finished(artifact, Step.from_json(record["step"]), record["curve"], key, reused=True)

    def _report_damage(self, folder: Path, reason: str) -> None:
        if not is_first() or folder in self._reported:
            return
        self._reported.add(folder)
        if self.folder not in folder.parents:
            log.warning("%s: this step of another run is passed over", reason)
            return
        aside = folder.with_name(f"{folder.name}{DAMAGED}")
        shutil.rmtree(aside, ignore_errors=True)
        folder.replace(aside)
        log.warning("%s: the step is set aside as '%s' and done again", reason, aside.name)

    def _others(self, own: Path) -> Iterator[Path]:
        """Folders under the pool with a record in them, apart from ``own``."""
        return (folder for folder in _folders(self.pool) if folder != own)

    @contextmanager
    def _exclusive(self, key: str) -> Iterator[None]:
        """Runs that share a step, as the trials of a sweep share a teacher, wait for the one that makes it."""
        locks = self.pool / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / key) if is_first() else nullcontext():
            yield


def finished_keys(pool: Path) -> set[str]:
    """Keys of the finished steps under ``pool`` whose files are what their records say; nothing is written."""
    found: set[str] = set()
    for folder in _folders(pool):
        try:
            record = sealed.read(folder / METRICS)
            if record and sealed.digest_of_file(folder / NETWORK) == record["files"][NETWORK]:
                found.add(record["key"])
        except (sealed.DamagedFileError, OSError, LookupError, TypeError):
            continue
    return found


def _folders(pool: Path) -> Iterator[Path]:
    """Folders under the pool with a record in them."""
    for place, folders, files in os.walk(pool):
        hidden = [name for name in folders if name.startswith(".") or name.endswith((PART, COPY, DAMAGED))]
        folders[:] = sorted(set(folders) - {*hidden, "wandb"})
        if METRICS in files:
            yield Path(place)


def _remove_leftovers(folder: Path, key: str) -> None:
    """Remove checkpoints and temporary files; a process that was killed here leaves that to the next run."""
    for path in folder.iterdir():
        if path.is_file() and (path.suffix == CHECKPOINT or path.name == key or path.name.startswith(".")):
            path.unlink()
