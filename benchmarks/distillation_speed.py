"""Images per second of distillation: ours, ours with a cache, a bare PyTorch loop, and torchdistill 1.1.5.

    pip install torchdistill
    python -m benchmarks.distillation_speed [--rounds 3] [--steps 2] [--threads 2]

Prints Markdown tables; each row of the first one is also a line of ``benchmarks/results/distillation_speed.jsonl``. On
GPUs `benchmarks.gpu` measures more. The networks, batches and losses of all ways are the same; ours and the bare loop
are in channels-last layout, torchdistill is as its examples are. Rounds interleave the ways, and ratios are taken
within a round, because a shared machine is never equally fast twice. A batch either lies ready in memory, or is loaded:
ours by our in-memory loader, the others' by torchvision's per-image transforms and a DataLoader with 2 workers.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks._command import command, described, positive
from benchmarks._memory import peak_mb
from benchmarks._results import RESULTS, append
from benchmarks._rounds import Way, median, race, ratios, row, speed_table
from benchmarks._ways import Cached, Run, bare, ours, torchdistill
from benchmarks._work import Workload
from distill.console import console

FILE = RESULTS / "distillation_speed.jsonl"
LAYERS = ("layer1", "layer2", "layer3")
SMALL = (("width", 0.5), ("small_images", True))
RESNET = Workload("resnet32x4", "resnet8x4", tuple(zip(LAYERS, LAYERS, strict=True)))
SHUFFLENET = Workload(
    "resnet20", "shufflenet_v2", tuple(zip(("conv1", "stage2", "stage3"), LAYERS, strict=True)), SMALL
)
MOBILENET = Workload(
    "resnet20", "mobilenet_v2", tuple(zip(("features.3", "features.6", "features.13"), LAYERS, strict=True)), SMALL
)
REVIEW = replace(RESNET, loss="reviewkd")
WORKS = [replace(work, loads=loads) for work in (RESNET, SHUFFLENET, MOBILENET) for loads in (False, True)] + [REVIEW]
WORKS += [replace(SHUFFLENET, loads=loads, compiled=True) for loads in (False, True)]
SWITCHES = {"none": {"channels_last": False}, "channels_last": {}, "channels_last, compile": {"compiled": True}}
BF16 = {"channels_last, bf16-mixed": {"precision": "bf16-mixed"}}


@command
def main() -> None:
    """Measure and print."""
    parser = described(__doc__)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--steps", type=positive, default=2)
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--rows", type=int, nargs="+", help="of the first table alone, from 0")
    parser.add_argument("--results", type=Path, default=FILE)
    parser.add_argument("--peak", choices=["ours", "cached", "bare", "torchdistill"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    console.quiet = True
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(folder) / "compiled")  # empty: start-up is that of a first run
        ways: dict[str, Way] = {
            "ours": ours,
            "cached": Cached(Path(folder)),
            "bare": bare,
            "torchdistill": torchdistill,
        }
        if options.peak:
            ways[options.peak](replace(RESNET, steps=1))
            say(peak_mb())
            return
        works = [replace(work, steps=options.steps) for work in WORKS]
        throughput(ways, [works[row] for row in options.rows or range(len(works))], options.rounds, options.results)
        if options.rows:
            return
        switches([replace(work, steps=options.steps) for work in (RESNET, SHUFFLENET)], options.rounds)
        memory(list(ways), options.threads)


def throughput(ways: Mapping[str, Way], works: Iterable[Workload], rounds: int, file: Path) -> None:
    """Images per second of each way, and what ours gain."""
    rows = []
    for work in works:
        ways["cached"](work)  # fills it
        found = row(work, race({name: (way, work) for name, way in ways.items()}, rounds))
        rows.append(found | {"teacher_forward": round(forward_cost(work), 1)})
        append(file, rows[-1])
    say(speed_table(rows))
    say("\n| teacher -> student | forward passes of the student that one of the teacher costs |\n|---|---|")
    for found in rows:
        say(f"| {found['teacher']} -> {found['student']} | {found['teacher_forward']} |")


def switches(works: Iterable[Workload], rounds: int) -> None:
    """What each of our switches gains, costs and changes."""
    say("\n| teacher -> student | switches | images/s | faster than none | first step after, s | loss differs by |")
    say("|---|---|---|---|---|---|")
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {flag} " in flags]
    tried = SWITCHES | (BF16 if any("bf16" in flag for flag in known) else {})
    for work in works:
        runs = race({name: (ours, replace(work, **switch)) for name, switch in tried.items()}, rounds).runs
        for name, made in runs.items():
            change = abs(made[0].loss / runs["none"][0].loss - 1)
            rate, gain = work.batch * work.steps / median(times(made)), faster(made, runs["none"])
            cells = [f"{work.teacher} -> {work.student}", name, f"{rate:.0f}", gain, f"{made[0].startup:.0f}"]
            say(f"| {' | '.join([*cells, f'{change:.0e}'])} |")
    left_out = "" if tried.keys() & BF16.keys() else "; bf16-mixed is left out, because it would only be emulated"
    say(f"\nThe processor has {', '.join(known) or 'neither AVX2 nor more'}{left_out}.")


def memory(names: Iterable[str], threads: int) -> None:
    """Peak memory of a process that does nothing else; the cached one fills its cache."""
    say("\n| way | peak memory, MB |\n|---|---|")
    for name in names:
        command = [sys.executable, "-m", "benchmarks.distillation_speed", "--peak", name, "--threads", str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        say(f"| {name} | {float(done.stdout.split()[-1]):.0f} |")


def times(runs: Iterable[Run]) -> list[float]:
    return [run.seconds for run in runs]


def faster(ours: Iterable[Run], others: Iterable[Run]) -> str:
    """How many times faster, round by round: median, smallest and largest."""
    found = ratios(ours, others)
    return f"{median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


@torch.no_grad()
def forward_cost(work: Workload) -> float:
    """How many forward passes of the student one of the teacher costs."""
    images = torch.randn(work.batch, 3, 32, 32).contiguous(memory_format=work.layout)
    seconds = []
    for network in work.networks():
        network.to(memory_format=work.layout).train(False)(images)
        started = time.perf_counter()
        for _ in range(3):
            network(images)
        seconds.append(time.perf_counter() - started)
    return seconds[1] / seconds[0]


def say(text: object, end: str = "\n") -> None:
    sys.stdout.write(f"{text}{end}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
