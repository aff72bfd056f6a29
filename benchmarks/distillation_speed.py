"""Images per second of distillation: ours, ours with a cache, a bare PyTorch loop, and torchdistill 1.1.5.

    pip install torchdistill
    python -m benchmarks.distillation_speed [--rounds 3] [--steps 2] [--threads 2]

Each row of a table is a line of ``benchmarks/results/distillation_speed.jsonl``, and what is there is not measured
again; `python -m benchmarks.tables` makes the tables. On GPUs `benchmarks.gpu` measures more. The networks, batches and
losses of all ways are the same; ours and the bare loop are in channels-last layout, torchdistill is as its examples
are. Rounds interleave the ways, and ratios are taken within a round, because a shared machine is never equally fast
twice. A batch either lies ready in memory, or is loaded: ours by our in-memory loader, the others' by torchvision's
per-image transforms and a DataLoader with 2 workers.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import _rounds
from benchmarks._command import command, described
from benchmarks._memory import peak_mb
from benchmarks._results import RESULTS, Row, kept, measured, table
from benchmarks._rounds import Way, about, race, row, speed_table
from benchmarks._ways import Cached, bare, ours, torchdistill
from benchmarks._work import Workload
from distill.cli.arguments import positive
from distill.console import console, quiet_libraries

FILE = RESULTS / "distillation_speed.jsonl"
IDENTITY = ("kind", *_rounds.IDENTITY)
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
# The bare loop is compiled again in its second step, when its hooks' dictionary is no longer empty.
WORKS += [replace(SHUFFLENET, loads=loads, compiled=True, warmup=3) for loads in (False, True)]
SWITCHES = {"none": {"channels_last": False}, "channels_last": {}, "channels_last, compile": {"compiled": True}}
BF16 = {"channels_last, bf16-mixed": {"precision": "bf16-mixed"}}


@command
def main() -> None:
    """Measure what is missing."""
    parser = described(__doc__)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--steps", type=positive, default=2)
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--results", type=Path, default=FILE)
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
        for work in (replace(work, steps=options.steps) for work in WORKS):
            keep(options.results, "throughput", work, lambda work=work: throughput(ways, work, options.rounds))
        for work in (replace(work, steps=options.steps) for work in (RESNET, SHUFFLENET)):
            keep(options.results, "switches", work, lambda work=work: switches(work, options.rounds))
        keep(options.results, "memory", RESNET, lambda: memory(list(ways), options.threads))


def keep(file: Path, kind: str, work: Workload, measure: Callable[[], Row]) -> None:
    """Measure what has no row yet."""
    found = kept(file, {"kind": kind, **about(work)}, measure)
    figures = found.get("times_as_fast") or found["ways"]
    say(f"{kind}, {found['teacher']} -> {found['student']}, {found['loss']}: {figures}")


def throughput(ways: Mapping[str, Way], work: Workload, rounds: int) -> Row:
    """Images per second of each way, and what ours gain."""
    ways["cached"](work)  # fills it
    found = race({name: (way, work) for name, way in ways.items()}, rounds)
    return row(work, found) | {"teacher_forward": round(forward_cost(work), 1)}


def switches(work: Workload, rounds: int) -> Row:
    """What each of our switches gains, costs and changes."""
    tried = SWITCHES | (BF16 if "bf16" in instructions() else {})
    found = race({name: (ours, replace(work, **switch)) for name, switch in tried.items()}, rounds)
    return row(work, found, [(name, "none") for name in tried]) | {"instructions": instructions()}


def instructions() -> str:
    """Those of the processor that decide how fast it trains; without bf16 among them it would only be emulated."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return ", ".join(name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {name} " in flags)


def memory(names: Iterable[str], threads: int) -> Row:
    """Peak memory of a process that does nothing else; the cached one fills its cache."""
    found = {}
    for name in names:
        command = [sys.executable, "-m", "benchmarks.distillation_speed", "--peak", name, "--threads", str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = round(float(done.stdout.split()[-1]))
    return {"ways": found}


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


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Throughput, switches and memory."""
    made = {}
    for kind, shown in (("throughput", _throughput), ("switches", _switches), ("memory", _memory)):
        if some := [one for one in rows if one["kind"] == kind]:
            made[f"distillation_speed {kind}"] = f"{shown(some)}\n\n{measured(some)}; {some[0]['hardware']}"
    return made


def _throughput(rows: Sequence[Row]) -> str:
    costs = {f"{one['teacher']} -> {one['student']}": f"{one['teacher_forward']}" for one in rows}
    columns = ("teacher -> student", "forward passes of the student that one of the teacher costs")
    return f"{speed_table(rows)}\n\n{table(columns, costs.items())}"


def _switches(rows: Sequence[Row]) -> str:
    lines = []
    for one in rows:
        for name, way in one["ways"].items():
            low, middle, high = one["times_as_fast"][f"{name} / none"]
            change = abs(way["loss"] / one["ways"]["none"]["loss"] - 1)
            rates = [f"{way['images_per_second'][1]:.0f}", f"{middle:.2f} ({low:.2f} to {high:.2f})"]
            pair = f"{one['teacher']} -> {one['student']}"
            lines.append([pair, name, *rates, f"{way['startup_seconds']:.0f}", f"{change:.0e}"])
    columns = ("switches", "images/s", "times as fast as none", "first step after, s", "loss differs by")
    return table(("teacher -> student", *columns), lines)


def _memory(rows: Sequence[Row]) -> str:
    return table(("way", "peak memory, MB"), ((name, str(mb)) for name, mb in rows[-1]["ways"].items()))


def say(text: object, end: str = "\n") -> None:
    sys.stdout.write(f"{text}{end}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
