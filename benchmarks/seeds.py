"""One recipe with several seeds: mean and standard deviation of every row of its table.

    python -m benchmarks.seeds quickstart --seeds 3
    python -m benchmarks.seeds fashion_mnist/real_run_cpu data.limit=20000 --seeds 3
    python -m benchmarks.seeds fashion_mnist/real_run_cpu --seeds 1

Each step of each seed is one line of ``benchmarks/results/seeds.jsonl``, and a seed that is there is not run again;
finished steps are reused, so the command can be stopped and started. `python -m benchmarks.tables` makes the tables.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks._command import command, described
from benchmarks._jobs import spread
from benchmarks._memory import peak_mb
from benchmarks._over_seeds import gain, grouped, middle, shown
from benchmarks._page import measured_here
from benchmarks._quartiles import marked, middle_quartiles, note
from benchmarks._results import RESULTS, Row, append, measured, read, table
from distill.artifact.step import Step
from distill.cli.arguments import positive
from distill.pipeline.run import run
from distill.recipe.loading import load

FILE = RESULTS / "seeds.jsonl"
IDENTITY = ("recipe", "overrides", "seed", "step")


def known(file: Path, recipe: str, overrides: str, seed: int) -> bool:
    """Whether that seed has been run."""
    named = (recipe, overrides, seed)
    return any((row["recipe"], row["overrides"], row.get("seed")) == named for row in read(file, IDENTITY))


def costs(step: Step, report: Row) -> Row:
    """What is kept of one step.

    Args:
        step: a row of the report.
        report: report.json.
    """
    latency, coded = report["latency"], report["coded_bytes"]
    return {
        "step": step.step,
        "params": step.params,
        "macs": step.macs,
        "bytes": step.bytes,
        **({"coded_bytes": sum(coded.values())} if coded and step.step == "export/onnx" else {}),
        "accuracy": 100 * step.metrics["test/accuracy"],
        "latency_ms": {key: step.latency_ms[key] for key in ("batch1", "batch32")},
        "quartiles_ms": latency["quartiles_ms"][step.step],
        "waited": latency["waited"],
        "seconds": step.seconds,
        "peak_mb": round(peak_mb()),
    }


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """A table for each recipe and what differs from it, by its name on pages."""
    names = dict.fromkeys((row["recipe"], row["overrides"]) for row in rows)
    some = {name: [row for row in rows if (row["recipe"], row["overrides"]) == name] for name in names}
    found = {name: " ".join(filter(None, ["seeds", *name])) for name in names}
    lines = {found[name]: recipe_table(some[name]) for name in names}
    return lines | {f"{found[name]}: in one line": line for name in names if (line := in_one_line(some[name]))}


def in_one_line(rows: Sequence[Row]) -> str:
    """The last file beside the teacher's and the distilled student beside the student alone, seed by seed.

    Empty where a step has not been measured seed by seed.
    """
    steps = {step: some for (step,), some in grouped(rows, "step").items() if "seed" in some[0]}
    if not {"teacher", "student"} <= {*steps}:
        return ""
    teacher, last = steps["teacher"], list(steps.values())[-1]
    pairs = list(zip(teacher, last, strict=True))
    smaller = spread([large["bytes"] / small["bytes"] for large, small in pairs], 0)
    faster = spread([slow["latency_ms"]["batch1"] / fast["latency_ms"]["batch1"] for slow, fast in pairs], 1)
    lost = spread([above["accuracy"] - below["accuracy"] for above, below in pairs])
    line = f"{smaller} times smaller and {faster} times as fast as the teacher's file, {lost} points below the teacher"
    if "baseline" in steps:
        gained = gain(steps["student"], steps["baseline"], "accuracy").removesuffix(" *")
        line += f"; distillation gains {gained} points"
    return line + ("" if len(pairs) > 1 else " (one seed)")


def recipe_table(rows: Sequence[Row]) -> str:
    """Step by step: mean and standard deviation of accuracy over seeds, medians of the rest."""
    lines, above = [], {}
    for (step,), seeds in grouped(rows, "step").items():
        first, latency = seeds[0], []
        for key in first["latency_ms"]:
            quartiles = middle_quartiles(seeds, key)
            text = f"{middle(seeds, lambda row, key=key: row['latency_ms'][key]):.3g}"
            latency.append(marked(text, quartiles, above.get(key)))
            above[key] = quartiles
        size, seconds = (middle(seeds, lambda row, name=name: row[name]) for name in ("bytes", "seconds"))
        counts = [f"{first['params']:,}", f"{first['macs']:,}", f"{size:,.0f}"]
        lines.append([step, *counts, shown(seeds, "accuracy"), *latency, f"{seconds:.0f}"])
    head = ["step", "parameters", "MACs", "bytes", "test accuracy, %", "batch 1, ms", "batch 32, ms", "seconds"]
    text = table(head, lines)
    return "\n\n".join([text, *beside(rows), f"{measured(rows)}{note(rows, text, 'the row above')}"])


def beside(rows: Sequence[Row]) -> list[str]:
    """What the run needed, and what the ONNX file has where it is coded: not part of every row that was measured."""
    memory = [row["peak_mb"] for row in rows if "peak_mb" in row]
    coded = [row["coded_bytes"] for row in rows if "coded_bytes" in row]
    words = [f"Peak memory of the process: {max(memory):,} MB."] if memory else []
    words += [f"The ONNX file, coded (student.onnx.xz): {spread(coded, 0)} bytes."] if coded else []
    return [" ".join(words)] if words else []


@command
def main() -> None:
    """Run what is missing, and print."""
    parser = described(__doc__)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="what differs from the recipe")
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--output", default="runs")
    parser.add_argument("--results", type=Path, default=FILE)
    options = parser.parse_intermixed_args()
    named = {"recipe": options.recipe, "overrides": " ".join(options.overrides)}
    for seed in range(options.seeds):
        if not known(options.results, **named, seed=seed):
            recipe = load(options.recipe, [f"output={options.output}", *options.overrides, f"seed={seed}"])
            about = {**named, "seed": seed, "measured": measured_here()}
            done = run(recipe)
            report = json.loads((done.folder / "report.json").read_bytes())
            append(options.results, *({**about, **costs(step, report)} for step in done.steps))
    print(tables(read(options.results, IDENTITY))[" ".join(filter(None, ["seeds", *named.values()]))])


if __name__ == "__main__":
    main()
