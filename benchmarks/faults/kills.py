"""Runs killed at random moments, once or twice, and started again: they end with the numbers of a run left alone.

    python -m benchmarks.faults.kills [--count 20] [--seed 0]

The temporary folder is on another file system than the output where the machine has one in memory. Nothing half-written
may be left in the output. The exit code is 1 if a run ended otherwise. Files that killed runs left in the temporary
folder are listed.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import distill
from distill.cli.arguments import positive

RECIPE = """
task: {name: classification}
data: {name: digits, limit: 150, crop: 1, batch_size: 50}
teacher: {name: resnet8x4, epochs: 2}
student: {name: mobilenet_v1, width: 0.25, small_images: true}
stages:
  distill: {epochs: 4, keep: best, losses: {kd: {weight: 0.9}}}
compress:
  prune: {sparsity: 0.5, finetune: {epochs: 2}}
  quantize: {bits: 8}
  encode: {}
cache: {views: 2}
tracking: {mode: disabled}
"""
MEMORY = Path("/dev/shm")
"""Linux's file system in memory."""


def run_recipe(recipe: Path, output: Path, temporary: Path, log: Path) -> None:
    """What a process does; it may be killed at any moment."""
    os.environ["TMPDIR"], tempfile.tempdir = str(temporary), None
    with log.open("a") as lines:
        os.dup2(lines.fileno(), 1)
        os.dup2(lines.fileno(), 2)
    from distill.cli.train import train
    from distill.measure import latency

    # Timing takes most of such a small run's time, and gives no number to compare.
    latency.round_robin = lambda *_, **__: latency.Race({}, 0.0)
    sys.exit(train([f"recipe={recipe}", f"output={output}"]))


def start(*arguments: Path) -> Any:
    """A process in which everything is imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["distill.pipeline.run", "distill.cli.train", "distill.data.digits"])
    process = context.Process(target=run_recipe, args=arguments)
    process.start()
    return process


def results(output: Path) -> dict[str, Any]:
    """Of every step: its numbers, curve and network; no seconds, and no file sizes, because files state seconds."""
    (report,) = output.rglob("report.json")
    found: dict[str, Any] = {}
    for step in json.loads(report.read_text())["steps"]:
        found[step["step"]] = [step[name] for name in ("params", "macs", "metrics")]
    for record in sorted(report.parent.rglob("metrics.json")):
        step = json.loads(record.read_text())
        rows = [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in step["curve"]]
        weights = distill.load(record.parent / "network.safetensors").state_dict()
        digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in weights.values())).hexdigest()
        found[str(record.parent.relative_to(report.parent))] = [rows, digest]
    return found


def leftovers(output: Path) -> Iterator[str]:
    """What a run that has ended should have removed."""
    for path in output.rglob("*"):
        if path.suffix in (".part", ".copy", ".ckpt", ".damaged") or path.name.startswith(".student"):
            yield str(path.relative_to(output))


class Tried(NamedTuple):
    """What became of killed runs."""

    count: int
    kills: int
    """Of these runs; some are killed twice."""
    wrong: int
    """Runs that ended otherwise."""
    left: int
    """Files that killed runs left in the temporary folder."""
    subject: str = "kills"


def tried(count: int, seed: int) -> Tried:
    """Kill and compare."""
    random, wrong, kills = Random(seed), 0, 0
    base = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(dir=base) as temporary:
        recipe, log, place = Path(folder) / "killed.yaml", Path(folder) / "log.txt", Path(temporary)
        recipe.write_text(RECIPE)
        seconds = whole(recipe, Path(folder) / "first", place, log)  # the first run also starts the server
        seconds = whole(recipe, Path(folder) / "whole", place, log)
        expected = results(Path(folder) / "whole")
        for case in range(count):
            output = Path(folder) / f"case-{case}"
            moments = [random.uniform(0, seconds) for _ in range(random.choice((1, 1, 2)))]
            killed = [kill(start(recipe, output, place, log), moment) for moment in moments]
            kills += sum(killed)
            code = ended(start(recipe, output, place, log))
            faults = _faults(output, expected) if code == 0 else [f"exit code {code}: {log.read_text()[-400:]}"]
            wrong += bool(faults)
            when = ", ".join(f"{moment:.1f}" for moment in moments)
            say(f"case {case}: killed after {when} s of {seconds:.1f} s: {'; '.join(faults) or 'equal'}")
            shutil.rmtree(output, ignore_errors=True)
        orphans = [path for path in place.rglob("*") if path.is_file() and path.stat().st_size]
        for path in orphans:
            say(f"left in the temporary folder: {path.relative_to(place)}, {path.stat().st_size:,} bytes")
    return Tried(count, kills, wrong, len(orphans))


def _faults(output: Path, expected: Mapping[str, Any]) -> list[str]:
    found = results(output)
    return [*(f"{name} differs" for name in expected if found.get(name) != expected[name]), *leftovers(output)]


def main() -> int:
    """Kill and compare, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=positive, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = tried(options.count, options.seed)
    say(f"{found.count} runs with {found.kills} kills: {found.count - found.wrong} equal, {found.wrong} otherwise")
    return int(found.wrong > 0)


def whole(recipe: Path, output: Path, temporary: Path, log: Path) -> float:
    """Seconds of a run that nobody kills."""
    started = time.monotonic()
    if code := ended(start(recipe, output, temporary, log)):
        raise SystemExit(f"the run fails with {code}: {log.read_text()[-2000:]}")
    return time.monotonic() - started


def ended(process: Any) -> int:
    """Its exit code."""
    process.join()
    return process.exitcode


def kill(process: Any, seconds: float) -> bool:
    """Kill a process then, if it still runs."""
    process.join(seconds)
    running = process.is_alive()
    process.kill()
    process.join()
    return running


def say(text: str) -> None:
    """A line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
