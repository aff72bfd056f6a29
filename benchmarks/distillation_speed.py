"""Images per second of distillation: ours, ours with a cache, a bare PyTorch loop, and torchdistill 1.1.5.

    pip install torchdistill
    python -m benchmarks.distillation_speed [--rounds 3] [--steps 2] [--threads 2]

Prints Markdown tables. The networks, batches and losses of all ways are the same; ours and the bare loop are in
channels-last layout, torchdistill is as its examples are. Rounds interleave the ways, and ratios are taken within a
round, because a shared machine is never equally fast twice. A batch either lies ready in memory, or is loaded: ours by
our in-memory loader, the others' by torchvision's per-image transforms and a DataLoader with 2 workers.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks._memory import peak_mb
from benchmarks._ways import Cached, Run, bare, ours, torchdistill
from benchmarks._work import Workload
from distill.console import console, quiet_libraries

Way = Callable[[Workload], Run]

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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, nargs="+", help="of the first table alone, from 0")
    parser.add_argument("--peak", choices=["ours", "cached", "bare", "torchdistill"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    quiet_libraries()
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
        throughput(ways, [works[row] for row in options.rows or range(len(works))], options.rounds)
        if options.rows:
            return
        switches([replace(work, steps=options.steps) for work in (RESNET, SHUFFLENET)], options.rounds)
        memory(list(ways), options.threads)


def throughput(ways: Mapping[str, Way], works: Iterable[Workload], rounds: int) -> None:
    """Images per second of each way, and what ours gain."""
    say(f"| teacher -> student | losses | batches | {' | '.join(ways)} | ours / bare | ours / torchdistill |", end="")
    say(" cached / bare | teacher / student forward |")
    say("|---" * (len(ways) + 7) + "|")
    for work in works:
        ways["cached"](work)  # fills it
        runs = interleaved({name: (way, work) for name, way in ways.items()}, rounds)
        compiled = " (ours compiled)" if work.compiled else ""
        cells = [f"{work.teacher} -> {work.student}{compiled}", work.loss, "loaded" if work.loads else "ready"]
        cells += [f"{work.batch * work.steps / median(seconds):.0f}" for seconds in map(times, runs.values())]
        cells += [faster(runs["ours"], runs[than]) for than in ("bare", "torchdistill")]
        cells += [faster(runs["cached"], runs["bare"]), f"{forward_cost(work):.1f}"]
        say(f"| {' | '.join(cells)} |")


def switches(works: Iterable[Workload], rounds: int) -> None:
    """What each of our switches gains, costs and changes."""
    say("\n| teacher -> student | switches | images/s | faster than none | first step after, s | loss differs by |")
    say("|---|---|---|---|---|---|")
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {flag} " in flags]
    tried = SWITCHES | (BF16 if any("bf16" in flag for flag in known) else {})
    for work in works:
        runs = interleaved({name: (ours, replace(work, **switch)) for name, switch in tried.items()}, rounds)
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


def interleaved(jobs: Mapping[str, tuple[Way, Workload]], rounds: int) -> dict[str, list[Run]]:
    """Every job once a round."""
    runs: dict[str, list[Run]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, (way, work) in jobs.items():
            runs[name].append(way(work))
    return runs


def times(runs: Iterable[Run]) -> list[float]:
    return [run.seconds for run in runs]


def faster(ours: Iterable[Run], theirs: Iterable[Run]) -> str:
    """How many times faster, round by round: median, smallest and largest."""
    ratios = [b / a for a, b in zip(times(ours), times(theirs), strict=True)]
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


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


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def say(text: object, end: str = "\n") -> None:
    sys.stdout.write(f"{text}{end}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
