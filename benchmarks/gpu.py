"""Distillation on a GPU: images per second of ours, of a bare PyTorch loop and of torchdistill, in every precision,
layout and compiled; how far that is from the limit; peak memory; and loading of data alone.

    pip install torchdistill
    python -m benchmarks.gpu                     measures what is missing, for at most nine minutes; then again
    python -m benchmarks.gpu --list              what is measured, what is missing
    python -m benchmarks.gpu --device cpu --tiny to try it where there is no GPU

A row is one line of ``benchmarks/results/gpu.jsonl``; what is there is not measured again, so the command can be
stopped and started. Rounds interleave the ways; ratios are taken within a round and shown with quartiles. Seconds
are from the end of the warm-up, compiling included, to that of the last step, and the GPU is waited for at these two
moments alone. ``limit`` is the teacher's forward pass and the student's forward and backward pass alone, on a batch
that lies on the GPU; ``loaded`` is ours with images that are loaded and augmented meanwhile.
`python -m benchmarks.tables` makes the tables.
"""

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import torch

from benchmarks._command import command, described
from benchmarks._loading import LOADING, from_files, in_memory, workers_here
from benchmarks._results import RESULTS, Row, append, read
from benchmarks._rounds import IDENTITY, Race, Way, about, race, row, speed_table, switches
from benchmarks._ways import Cached, bare, limit, ours, torchdistill
from benchmarks._work import Workload
from distill.cli.arguments import positive
from distill.console import console
from distill.errors import UserError

FILE = RESULTS / "gpu.jsonl"
SECONDS = 500
"""Within nine minutes, with some to spare."""

LAYERS = ("layer1", "layer2", "layer3", "layer4")
CIFAR = {"batch": 256, "steps": 60, "warmup": 10}
IMAGENET = {"batch": 64, "steps": 15, "warmup": 4, "side": 224, "classes": 1000}
RESNET = Workload("resnet32x4", "resnet8x4", tuple(zip(LAYERS[:3], LAYERS[:3], strict=True)), **CIFAR)
SHUFFLENET = Workload(
    "resnet32x4",
    "shufflenet_v2",
    tuple(zip(("conv1", "stage2", "stage3"), LAYERS[:3], strict=True)),
    (("small_images", True),),
    **CIFAR,
)
MOBILENET = Workload(
    "resnet50",
    "mobilenet_v2",
    tuple(zip(("features.3", "features.6", "features.13", "features.17"), LAYERS, strict=True)),
    **IMAGENET,
)
TRANSFORMER = Workload("vit_b_16", "resnet18", (), loss="kd", **IMAGENET)
PAIRS = (RESNET, SHUFFLENET, MOBILENET, TRANSFORMER)
SWITCHES = (
    {"precision": "bf16-mixed"},
    {"precision": "bf16-mixed", "compiled": True},
    {"channels_last": False},
    {},
    {"precision": "bf16-mixed", "channels_last": False},
)
"""The most useful first: a machine may be lent for minutes only."""
SMALL_BATCH = replace(RESNET, batch=64)
"""The batch of the methods' published recipes, in which a GPU waits for Python."""
LOADS = {
    in_memory: replace(RESNET, teacher="images in memory", student=LOADING, loss="", loads=True),
    from_files: replace(
        MOBILENET, teacher=f"JPEG files, {workers_here()} workers", student=LOADING, loss="", loads=True, steps=30
    ),
}


@dataclass(frozen=True)
class Entry:
    """A row of the table, measured or not."""

    work: Workload
    ways: Callable[[Workload, Path], Mapping[str, Way]]

    @property
    def title(self) -> str:
        return f"{self.work.teacher} -> {self.work.student}, {self.work.batch}, {switches(vars(self.work))}"


def entries(device: str, tiny: bool) -> list[Entry]:
    """All rows, in the order in which they are measured."""
    works = [replace(pair, **switch) for switch in SWITCHES for pair in PAIRS]
    works[len(PAIRS) : len(PAIRS)] = [SMALL_BATCH]
    loads = [Entry(work, lambda work, folder, make=make: _loading(make, work, folder)) for make, work in LOADS.items()]
    made = [*(Entry(work, training_ways) for work in works[: len(PAIRS)]), *loads]
    made += [Entry(work, training_ways) for work in works[len(PAIRS) :]]
    small = {"batch": 4, "steps": 1, "warmup": 1} if tiny else {}
    return [replace(entry, work=replace(entry.work, device=device, **small)) for entry in made]


def training_ways(work: Workload, folder: Path) -> Mapping[str, Way]:
    """Compiled code of torchdistill and of a cache would say nothing new, and takes minutes to compile."""
    ways: dict[str, Way] = {"ours": ours, "bare": bare, "limit": limit}
    if work.compiled:
        return ways
    cached = Cached(folder)
    cached(work)  # fills it
    ways |= {"cached": cached, "torchdistill": torchdistill}
    return ways | ({"loaded": lambda work: ours(replace(work, loads=True))} if work.side == RESNET.side else {})


def measure(entry: Entry, rounds: int) -> Row:
    """One row; compiled code is timed in three rounds, since each compiles again."""
    with tempfile.TemporaryDirectory() as folder:
        # An empty cache of compiled code: the longest start is that of a first run.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(folder) / "compiled")
        try:
            ways = entry.ways(entry.work, Path(folder))
        except Exception as error:
            return row(entry.work, Race(failed={"all": f"{type(error).__name__}: {error}".partition("\n")[0]}))
        found = race({name: (way, entry.work) for name, way in ways.items()}, 3 if entry.work.compiled else rounds)
    return row(entry.work, found)


def missing(wanted: Sequence[Entry], rows: Sequence[Row], again: bool) -> list[Entry]:
    """What has no row yet; ``again`` also those in which a way failed."""
    done = {_identity(one) for one in rows if not (again and one["failed"])}
    return [entry for entry in wanted if _identity(about(entry.work)) not in done]


def measure_all(wanted: Sequence[Entry], file: Path, rounds: int, seconds: float) -> int:
    """Measure row by row while there is time for one more as long as the longest; how many are left."""
    started, longest = time.perf_counter(), 0.0
    for number, entry in enumerate(wanted):
        began = time.perf_counter()
        if number and began - started + longest > seconds:
            return len(wanted) - number
        found = measure(entry, rounds)
        append(file, found)
        longest = max(longest, time.perf_counter() - began)
        shown = {name: f"{way['images_per_second'][1]:,.0f}" for name, way in found["ways"].items()} | found["failed"]
        print(f"{entry.title}: {shown} ({time.perf_counter() - began:.0f} s)", flush=True)
    return 0


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Training and loading, each on every GPU that was measured."""
    training = [one for one in rows if one["student"] != LOADING]
    loading = [one for one in rows if one["student"] == LOADING]
    return {name: _of_each(some) for name, some in (("gpu", training), ("gpu loading", loading)) if some}


@command
def main() -> None:
    """Measure what is missing, for as long as is allowed."""
    parser = described(__doc__)
    parser.add_argument("--rows", nargs="+", default=["*"], metavar="GLOB", help="of titles, as --list shows them")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="begin no row that would end later")
    parser.add_argument("--again", action="store_true", help="measure rows again in which a way failed")
    parser.add_argument("--list", action="store_true", help="show what is there and what is missing")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="two steps on four images, to try the command")
    parser.add_argument("--results", type=Path, default=FILE)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            f"PyTorch {torch.__version__} finds no CUDA device on this machine: run this where there is one, or try it "
            "with --device cpu --tiny --results FILE"
        )
    if options.device == "cpu" and options.results == FILE:
        raise SystemExit(f"{FILE} is of GPUs: name another file with --results")
    console.quiet = True
    every = entries(options.device, options.tiny)
    chosen = [entry for entry in every if any(fnmatch(entry.title, pattern) for pattern in options.rows)]
    if not chosen:
        raise UserError(
            f"--rows {' '.join(options.rows)} fits no row: `python -m benchmarks.gpu --list` shows their titles"
        )
    todo = missing(chosen, read(options.results, IDENTITY), options.again)
    if options.list:
        print("\n".join(f"{'missing ' if entry in todo else 'measured'} {entry.title}" for entry in chosen))
        return
    left = measure_all(todo, options.results, options.rounds, options.seconds)
    print(f"{len(chosen) - left} of {len(chosen)} rows are measured{': start this command again' if left else ''}")


def _identity(one: Row) -> tuple[object, ...]:
    return tuple(one[name] for name in IDENTITY)


def _loading(
    make: Callable[[Workload, Path, int], Mapping[str, Way]], work: Workload, folder: Path
) -> Mapping[str, Way]:
    return make(work, folder / "photographs", workers_here())


def _of_each(rows: Sequence[Row]) -> str:
    """A table for each GPU, under its name."""
    of_each = {
        name: [one for one in rows if one["hardware"] == name] for name in {one["hardware"]: None for one in rows}
    }
    return "\n\n".join(f"{name} ({some[-1]['measured']}):\n\n{speed_table(some)}" for name, some in of_each.items())


if __name__ == "__main__":
    main()
