"""What one file of this package says, and how its cases are run and counted."""

import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from benchmarks._memory import peak_mb
from distill.errors import DistillError

SECONDS = 10
"""Of CPU time that a single case may take."""
MEMORY = 2.0
"""Times the peak memory of the whole valid run that cases may take."""
OUTCOMES = ("right", "named", "else")


class WrongResultError(Exception):
    """A case ended without an error, but with something else than it should."""


@dataclass(frozen=True)
class Faults:
    """Cases of one subject: the constant ``FAULTS`` of a file in this package.

    Args:
        kinds: of cases, and the parts of all cases that they are: ``{"raw": 0.4, ...}``.
        count: how many cases there are by default.
        prepare: makes in a folder what all cases begin with; returns it. The same for the same folder's name.
        valid: the whole valid run, which bounds memory.
        attempt: one case: returns if its result is right. A `DistillError` is a named error; anything else is a fault.
    """

    kinds: dict[str, float]
    count: int
    prepare: Callable[[Path], Any]
    valid: Callable[[Any], None]
    attempt: Callable[[Any, str, Random], None]


def subjects() -> list[str]:
    """Names of the files in this package that have cases; the others are commands of their own."""
    folder = Path(__file__).parent
    return sorted(path.stem for path in folder.glob("[!_]*.py") if "\nFAULTS = " in path.read_text())


def faults_of(subject: str) -> Faults:
    """Those of that file."""
    found = importlib.import_module(f"benchmarks.faults.{subject}").FAULTS
    assert isinstance(found, Faults)
    return found


def kind_of(faults: Faults, case: int, seed: int) -> tuple[str, Random]:
    """The kind of a case and its source of randomness; both depend on nothing but these numbers."""
    random = Random(f"{seed}/{case}")
    return random.choices(list(faults.kinds), list(faults.kinds.values()))[0], random


def work(subject: str, folder: Path, first: int, last: int, seed: int) -> None:
    """Run some cases in this process, a line for each: its number, kind, outcome, seconds and what went wrong."""
    faults = faults_of(subject)
    state = faults.prepare(folder)
    faults.valid(state)
    say(f"valid {peak_mb():.0f}")
    for case in range(first, last):
        kind, random = kind_of(faults, case, seed)
        say(f"begin {case} {kind}")
        start, outcome, why = time.process_time(), "right", ""
        try:
            with _limited():
                faults.attempt(state, kind, random)
        except DistillError:
            outcome = "named"
        except BaseException as error:  # a fault of any kind is what is looked for
            outcome = "else"
            place = traceback.extract_tb(error.__traceback__)[-1]
            why = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        seconds = time.process_time() - start
        say(f"end {case} {kind} {outcome} {seconds:.2f} {peak_mb():.0f} {' '.join(why.split())[:200]}")


@dataclass
class Result:
    """What became of one subject's cases."""

    outcomes: Counter[tuple[str, str]]
    """(kind, outcome) -> how many."""
    wrong: list[str]
    valid_mb: float
    peak_mb: float
    slowest: float

    def to_json(self) -> dict[str, Any]:
        """Plain data; of what went wrong, the number."""
        outcomes = {
            kind: {outcome: self.outcomes[kind, outcome] for outcome in OUTCOMES}
            for kind in sorted({kind for kind, _ in self.outcomes})
        }
        return {**asdict(self), "outcomes": outcomes, "wrong": len(self.wrong)}


def run(subject: str, count: int, seed: int, jobs: int, seconds: float) -> Result:
    """Run cases in processes of their own, so that a crash or an endless loop of one is a case and not the end."""
    result = Result(Counter(), [], 0.0, 0.0, 0.0)
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        bounds = [count * job // jobs for job in range(jobs + 1)]
        workers = [_Worker(subject, Path(folder) / str(job), *bounds[job : job + 2], seed) for job in range(jobs)]
        while workers and time.monotonic() < end:
            workers = [worker for worker in workers if worker.step(result)]
            time.sleep(0.05)
        for worker in workers:
            worker.stop()
    return result


class _Worker:
    """Cases ``first`` to ``last`` of a subject in a process, which is started again behind a case that ends it."""

    def __init__(self, subject: str, folder: Path, first: int, last: int, seed: int) -> None:
        self.subject, self.folder, self.last, self.seed = subject, folder, last, seed
        self.log = folder.with_suffix(".log")
        self._start(first)

    def _start(self, first: int) -> None:
        self.folder.mkdir(exist_ok=True)
        arguments = [self.subject, str(self.folder), str(first), str(self.last), str(self.seed)]
        command = [sys.executable, "-m", "benchmarks.faults", "--work", *arguments]
        self.read, self.began, self.running = 0, time.monotonic(), ""
        with self.log.open("wb") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)

    def step(self, result: Result) -> bool:
        """Count what is new; returns whether there is more to come."""
        ended = self.process.poll() is not None
        text = self.log.read_bytes().decode(errors="replace")
        lines = text[self.read :].splitlines(keepends=True)
        for line in lines if ended else [line for line in lines if line.endswith("\n")]:
            self.read += len(line)
            self._count(line.rstrip("\n"), result)
        if self.running and time.monotonic() - self.began > 12 * SECONDS:
            self.process.kill()
            self.process.wait()
            ended = True
        if not ended:
            return True
        if not self.running:
            if self.process.returncode:
                result.wrong.append(f"the worker ended with {self.process.returncode}: {text[-400:]}")
            return False
        case, kind = self.running.split()
        result.outcomes[kind, "else"] += 1
        result.wrong.append(f"case {case} ({kind}): the process ended with {self.process.returncode}")
        self._start(int(case) + 1)
        return True

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def _count(self, line: str, result: Result) -> None:
        word, _, rest = line.partition(" ")
        if word == "valid":
            result.valid_mb = max(result.valid_mb, float(rest))
        elif word == "begin":
            self.running, self.began = rest, time.monotonic()
        elif word == "end":
            case, kind, outcome, seconds, peak, *why = rest.split(" ", 5)
            self.running = ""
            result.outcomes[kind, outcome] += 1
            result.slowest, result.peak_mb = max(result.slowest, float(seconds)), max(result.peak_mb, float(peak))
            if outcome == "else":
                result.wrong.append(f"case {case} ({kind}): {' '.join(why)}")


@contextmanager
def _limited() -> Iterator[None]:
    def late(*_: Any) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def say(text: str) -> None:
    """A line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
