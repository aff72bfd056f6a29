"""Ways to train timed against each other, in rounds of one run each: what disturbs one disturbs all."""

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from benchmarks._page import measured_here
from benchmarks._results import Row, table
from benchmarks._ways import Run
from benchmarks._work import Workload

Way = Callable[[Workload], Run]

IDENTITY = ("hardware", "teacher", "student", "loss", "loads", "batch", "channels_last", "compiled", "precision")
RATIOS = (("ours", "bare"), ("ours", "torchdistill"), ("ours", "limit"), ("cached", "bare"), ("loaded", "ours"))
"""How many times as fast the first is as the second, where both are measured."""


@dataclass
class Race:
    """What every way did, round by round."""

    runs: dict[str, list[Run]] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    """Peak of the GPU memory in tensors, in MB; on a CPU nothing."""
    failed: dict[str, str] = field(default_factory=dict)
    """Ways that raised an error, and the first line of it."""


def race(jobs: Mapping[str, tuple[Way, Workload]], rounds: int) -> Race:
    """Every job once a round; one that fails once is left out from then on."""
    found = Race({name: [] for name in jobs})
    for _ in range(rounds):
        for name, (way, work) in jobs.items():
            if name in found.failed:
                continue
            _release(work.device)
            try:
                found.runs[name].append(way(work))
            except Exception as error:  # out of memory, no compiler, a package that is absent: the others go on
                found.failed[name] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            if work.device == "cuda":
                found.memory[name] = torch.cuda.max_memory_allocated() / 1e6
    return found


def row(work: Workload, found: Race, pairs: Iterable[tuple[str, str]] = RATIOS) -> Row:
    """One measurement as plain data: images per second of each way with quartiles, and ratios taken round by round."""
    made = {name: runs for name, runs in found.runs.items() if runs and name not in found.failed}
    images = work.batch * work.steps
    return {
        **about(work),
        "steps": work.steps,
        "rounds": max(map(len, made.values()), default=0),
        "ways": {
            name: {
                "images_per_second": quartiles([images / run.seconds for run in runs]),
                "startup_seconds": round(max(run.startup for run in runs), 2),
                "memory_mb": round(found.memory[name], 1) if name in found.memory else None,
                "loss": runs[0].loss,
            }
            for name, runs in made.items()
        },
        "times_as_fast": {
            f"{one} / {other}": quartiles(ratios(made[one], made[other]))
            for one, other in pairs
            if one in made and other in made
        },
        "failed": found.failed,
        "measured": f"{measured_here()}, PyTorch {torch.__version__}",
    }


def about(work: Workload) -> Row:
    """What tells measurements apart."""
    facts = vars(work) | {"hardware": hardware(work.device)}
    return {name: facts[name] for name in (*IDENTITY, "side")}


def hardware(device: str) -> str:
    """The GPU by its name, or the CPU with the number of threads."""
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def quartiles(values: Sequence[float]) -> list[float]:
    """The first quartile, the median and the third quartile, to four digits."""
    return [float(f"{value:.4g}") for value in np.percentile(values, [25, 50, 75])]


def ratios(ours: Iterable[Run], others: Iterable[Run]) -> list[float]:
    """How many times as fast, round by round."""
    return [other.seconds / one.seconds for one, other in zip(ours, others, strict=True)]


def speed_table(rows: Sequence[Row]) -> str:
    """Images per second of each way, ratios with quartiles, and peak memory of ours where it is known."""
    names = list(dict.fromkeys(name for one in rows for name in one["ways"] | one["failed"]))
    pairs = [f"{a} / {b}" for a, b in RATIOS if any(f"{a} / {b}" in one["times_as_fast"] for one in rows)]
    header = ["teacher -> student", "losses", "batch", "switches", *names, *pairs, "MB, ours / bare", "start, s"]
    return table(header, [_cells(one, names, pairs) for one in rows])


def switches(one: Row) -> str:
    """Precision, layout and compilation in words."""
    layout, compiled = "channels_last" if one["channels_last"] else "", "compiled" if one["compiled"] else ""
    return ", ".join(filter(None, [one["precision"].removesuffix("-mixed").removesuffix("-true"), layout, compiled]))


def _cells(one: Row, names: Iterable[str], pairs: Iterable[str]) -> list[str]:
    ways, ratio = one["ways"], one["times_as_fast"]
    images = f"{one['batch']}, {one['side']}x{one['side']}, {'loaded' if one['loads'] else 'ready'}"
    rates = [
        f"{ways[name]['images_per_second'][1]:,.0f}" if name in ways else one["failed"].get(name, "") for name in names
    ]
    gains = ["{1:.2f} ({0:.2f} to {2:.2f})".format(*ratio[pair]) if pair in ratio else "" for pair in pairs]
    memory = [ways[name]["memory_mb"] for name in ("ours", "bare") if name in ways]
    shown = " / ".join(f"{megabytes:,.0f}" for megabytes in memory) if all(memory) else ""
    startup = f"{ways['ours']['startup_seconds']:.0f}" if "ours" in ways else ""
    facts = [f"{one['teacher']} -> {one['student']}", one["loss"], images, switches(one)]
    return [*facts, *rates, *gains, shown, startup]


def _release(device: str) -> None:
    """Free what the run before left, so that peaks are of one run."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
