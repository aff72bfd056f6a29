"""Pictures per second that networks repaint in ONNX Runtime: teacher, light student, and the student
after the recipe's hooks.

    python -m benchmarks.style [--recipe style/photographs] [--sizes 256 512 1024] [--threads 2]

Teacher and student of the recipe, and the paper's network, with first weights, for speed does not depend on them; hooks
run without their training. One file serves all sizes. Networks are timed in turns, one run of each a round, so that
what disturbs one disturbs all. Each figure is one line of ``benchmarks/results/style.jsonl``; `python -m
benchmarks.tables` makes the table.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import torch

from benchmarks._command import command, described
from benchmarks._page import measured_here
from benchmarks._results import RESULTS, Row, append, read, table
from distill.artifact import Artifact
from distill.cli.arguments import positive
from distill.export import onnx_file
from distill.measure import latency
from distill.models import cost
from distill.models.surgery import deployable
from distill.pipeline.apply_hook import apply_hook
from distill.pipeline.build import data_and_task, initial_artifact
from distill.recipe.loading import load
from distill.recipe.schema.components import NetworkSection
from distill.recipe.typed import typed

FILE = RESULTS / "style.jsonl"
IDENTITY = ("recipe", "network", "size", "threads")
CHANNELS = 3
SECONDS = 1.5
"""Of each network at each size."""


def networks(name: str) -> Iterator[tuple[str, Artifact]]:
    """Every entrant, by its name in the table."""
    recipe = load(name, [])
    data, task = data_and_task(recipe)
    make = partial(initial_artifact, data=data, task=task, seed=0)
    yield "style_net of the paper", make(typed("style_net", NetworkSection, "style"))
    assert recipe.teacher
    yield "teacher", make(recipe.teacher)
    artifact, title = make(recipe.student), "student"
    yield title, artifact
    for label, hook in recipe.compress.items():
        if label != "encode":  # changes nothing but the bytes of the artifact
            artifact = apply_hook(hook, artifact, data, task, monitor=lambda _: 0.0, samples=16, progress=1.0)
            title += f" + {label}"
            yield title, artifact


def measure(name: str, sizes: Sequence[int], threads: int) -> Iterator[Row]:
    """One row for each network and size."""
    entrants = {title: deployable(artifact.model) for title, artifact in networks(name)}
    example = torch.randn(2, CHANNELS, 64, 64, generator=torch.Generator().manual_seed(0))
    files = {title: onnx_file.serialize(model, example, any_size=True) for title, model in entrants.items()}
    sessions = {title: onnx_file.session(content, threads=threads) for title, content in files.items()}
    for size in sizes:
        picture = torch.randn(1, CHANNELS, size, size, generator=torch.Generator().manual_seed(1))
        runs = {title: partial(onnx_file.answer, session, picture) for title, session in sessions.items()}
        for title, timing in latency.in_turns(runs, SECONDS).items():
            yield {
                "recipe": name,
                "network": title,
                "size": size,
                "threads": threads,
                "median_ms": round(timing.median, 3),
                "quartiles_ms": [round(end, 3) for end in timing.quartiles],
                "params": cost.params(entrants[title]),
                "macs": cost.macs(entrants[title], picture),
                "onnx_bytes": len(files[title]),
                "measured": measured_here(),
            }


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """A table for each recipe: pictures per second, and how many times as fast as the teacher."""
    return {f"speed {name}": _table([row for row in rows if row["recipe"] == name]) for name in _unique(rows, "recipe")}


def _table(rows: Sequence[Row]) -> str:
    sizes = sorted(_unique(rows, "size"))
    took = {(row["network"], row["size"]): row["median_ms"] for row in rows}
    lines = []
    for network in _unique(rows, "network"):
        one = next(row for row in rows if row["network"] == network and row["size"] == sizes[0])
        cells = [
            f"{1000 / took[network, size]:.3g} ({took['teacher', size] / took[network, size]:.2g}x)" for size in sizes
        ]
        lines.append([network, f"{one['params']:,}", f"{one['macs'] / 1e6:,.0f}", f"{one['onnx_bytes']:,}", *cells])
    header = ["network", "parameters", f"million MACs at {sizes[0]}", "bytes of the ONNX file"]
    threads, machine = rows[0]["threads"], rows[0]["measured"]
    text = table([*header, *(f"pictures/s at {size} (against the teacher)" for size in sizes)], lines)
    return f"{text}\n\nONNX Runtime, {threads} threads, medians, in turns; {machine}."


def _unique(rows: Sequence[Row], field: str) -> list:
    return list(dict.fromkeys(row[field] for row in rows))


@command
def main() -> None:
    """Measure and keep."""
    parser = described(__doc__)
    parser.add_argument("--recipe", default="style/photographs")
    parser.add_argument("--sizes", type=positive, nargs="+", default=[256, 512, 1024], metavar="PIXELS")
    parser.add_argument("--threads", type=positive, default=2)
    options = parser.parse_args()
    for row in measure(options.recipe, options.sizes, options.threads):
        append(FILE, row)
        print(row["network"], row["size"], f"{1000 / row['fastest_ms']:.3g} pictures/s", flush=True)
    print(next(iter(tables(read(FILE, IDENTITY)).values())))


if __name__ == "__main__":
    main()
