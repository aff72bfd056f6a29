"""Training steps where the allocator keeps freed memory, as our training lets it, and where it does not.

    python -m benchmarks.freed_memory [--rounds 5] [--threads 1]

A plain PyTorch step in channels-last layout, forward, backward and SGD, on random images. Each measurement is a process
of its own, for an allocator does not forget; both ways take turns. CPU milliseconds and page faults of a step, peak
memory of the process: medians over the rounds. Each network is a line of ``benchmarks/results/freed_memory.jsonl``, and
what is there is not measured again; `python -m benchmarks.tables` makes the table.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks import _results
from benchmarks._command import command, described
from benchmarks._jobs import say
from benchmarks._memory import peak_mb
from benchmarks._results import RESULTS, Row, kept
from distill.cli.arguments import positive
from distill.models.build import build_network
from distill.training.freed_memory import freed_memory_kept

FILE = RESULTS / "freed_memory.jsonl"
IDENTITY = ("network", "size", "batch", "threads")
WORK = (
    ("shufflenet_v2", 28, 64, {"width": 0.5, "small_images": True}),
    ("resnet20", 32, 128, {}),
    ("mobilenet_v2", 128, 16, {}),
    ("resnet18", 224, 16, {}),
)
WARMUP, STEPS = 5, 10
WAYS = {"given back": nullcontext, "kept": freed_memory_kept}
COLUMNS = ("network", "batch", "CPU ms a step, given back", "kept", "times as fast", "page faults a step", "peak MB")


def steps(name: str, size: int, batch: int, options: Row, way: str) -> Row:
    """Train a network in this process."""
    torch.manual_seed(0)
    model = build_network({"name": name, "num_classes": 10, "channels": 3, **options})
    model.train().to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with WAYS[way]():
        for step in range(WARMUP + STEPS):
            if step == WARMUP:
                started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        seconds = time.process_time() - started
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return {"milliseconds": 1000 * seconds / STEPS, "faults": faults / STEPS, "peak_mb": peak_mb()}


def measure(name: str, threads: int, rounds: int) -> Row:
    """Both ways in turns: the medians."""
    found: dict[str, list[Row]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, rows in found.items():
            arguments = ["--alone", name, way, "--threads", str(threads)]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.freed_memory", *arguments], stdout=subprocess.PIPE, check=True
            )
            rows.append(json.loads(done.stdout))
    pairs = zip(found["given back"], found["kept"], strict=True)
    return {
        "rounds": rounds,
        "ratios": [before["milliseconds"] / after["milliseconds"] for before, after in pairs],
        **{
            key: {way: statistics.median(row[key] for row in rows) for way, rows in found.items()}
            for key in ("milliseconds", "faults", "peak_mb")
        },
    }


def tables(rows: Sequence[Row]) -> dict[str, str]:
    lines = []
    for row in rows:
        ms = [f"{row['milliseconds'][way]:.0f}" for way in WAYS]
        low, middle, high = statistics.quantiles(row["ratios"], n=4)
        both = [" / ".join(f"{row[key][way]:,.0f}" for way in WAYS) for key in ("faults", "peak_mb")]
        work = f"{row['batch']}, {row['size']}x{row['size']}"
        lines.append([row["network"], work, *ms, f"{middle:.2f} ({low:.2f} to {high:.2f})", *both])
    return {"freed_memory": f"{_results.table(COLUMNS, lines)}\n\n{_results.measured(rows)}"} if lines else {}


@command
def main() -> None:
    """Measure what is missing."""
    parser = described(__doc__)
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--results", type=Path, default=FILE)
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)  # one network one way, in this process
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work = {name: (size, batch, settings) for name, size, batch, settings in WORK}
    if options.alone:
        name, way = options.alone
        say(json.dumps(steps(name, *work[name], way)))
        return
    for name, (size, batch, _) in work.items():
        named = {"network": name, "size": size, "batch": batch, "threads": options.threads}
        row = kept(options.results, named, partial(measure, name, options.threads, options.rounds))
        say(f"{name}: {statistics.median(row['ratios']):.2f} times as fast")


if __name__ == "__main__":
    main()
