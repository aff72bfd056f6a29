"""Parts of a benchmark side by side, and how their results are written."""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from distill.cli.arguments import positive
from distill.console import console


def at_once(work: Mapping[str, list[str]], folder: Path, jobs: int, module: str) -> None:
    """Run a benchmark on parts of its work, so many at a time, each on one thread and with a log of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(name: str) -> None:
        with (folder / f"{name}.log").open("w") as log:
            subprocess.run(
                [sys.executable, "-m", module, "--debug", *work[name]], env=environment, stdout=log, stderr=log
            )

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, work))


def parsed(parser: argparse.ArgumentParser, results: Path) -> argparse.Namespace:
    """The options, with those of every benchmark that goes through seeds; nothing is shown of runs from then on."""
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=results)
    options = parser.parse_args()
    console.quiet = True
    return options


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def say(text: str) -> None:
    """A line of the table."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
