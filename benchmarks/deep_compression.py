"""Deep Compression (Han, Mao & Dally, arXiv:1510.00149) on other data: how many times smaller without loss of accuracy.

    python -m benchmarks.deep_compression [--recipes digits/deep_compression_lenet5 ...] [--seeds 3] [--jobs 2]

Prunes, shares and codes as the recipes say. Finished steps are kept in ``OUTPUT``, so that another codec codes again
without training (``--results`` another file). Each recipe and seed is a line of
``benchmarks/results/deep_compression.jsonl`` and is not measured again; `python -m benchmarks.tables` makes the tables
of docs/benchmarks/deep_compression.md.
"""

import argparse
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks import _results
from benchmarks._command import command, described
from benchmarks._jobs import at_once, say
from benchmarks._over_seeds import grouped, shown
from benchmarks._results import RESULTS, Row, kept
from benchmarks.compression import test
from distill.cli.arguments import positive
from distill.console import console
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import compress, train_student
from distill.recipe.loading import load

FILE = RESULTS / "deep_compression.jsonl"
IDENTITY = ("recipe", "seed")
HOOKS = ("prune", "cluster", "encode")
PUBLISHED = {
    "digits/deep_compression_lenet300": "40 (MNIST)",
    "digits/deep_compression_lenet5": "39 (MNIST)",
    "digits/deep_compression_resnet20": "",
    "fashion_mnist/deep_compression_lenet300": "40 (MNIST)",
    "fashion_mnist/deep_compression_lenet5": "39 (MNIST)",
}
"""By recipe, how many times smaller the paper's network of that name becomes, and on which data."""


def measure(recipe: str, seed: int, output: Path) -> Row:
    """Train, compress and evaluate; what earlier calls have finished is reused. Accuracy in percent on the test split
    before compression (``dense``) and after it (``small``)."""
    with Experiment.open(load(recipe, [f"seed={seed}", f"output={output}", "tracking.mode=disabled"])) as experiment:
        stages = train_student(experiment, {})
        trained = list(stages.values())[-1]
        done = compress(experiment, trained, stages)
        dense = test(experiment, trained.artifact.model)
        small = test(experiment, list(done.values())[-1].artifact.model)
        size = {name.partition("-")[2]: one.step.bytes for name, one in done.items()}
        return {
            "student": experiment.recipe.student.name,
            "samples": experiment.data.samples,
            "params": trained.step.params,
            "ratio": 4 * trained.step.params / size["encode"],
            **{"dense": dense, "small": small, "difference": small - dense, "bytes": size},
        }


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Ratios and accuracies, and the bytes that each step leaves; none without rows."""
    if not rows:
        return {}
    ratios, steps = [], []
    for (recipe,), seeds in grouped(rows, "recipe").items():
        one = seeds[0]
        counts = [recipe, one["student"], f"{one['samples']:,}", f"{one['params']:,}", shown(seeds, "ratio")]
        ratios.append([*counts, PUBLISHED[recipe], *(shown(seeds, name) for name in ("dense", "small", "difference"))])
        sizes = [statistics.median_low([row["bytes"][hook] for row in seeds]) for hook in HOOKS]
        steps.append([recipe, *(f"{size:,}" for size in sizes), f"{8 * sizes[-1] / one['params']:.2f}"])
    head = ["recipe", "network", "training images", "parameters", "ratio", "published", "test, dense"]
    head += ["test, compressed", "difference, points"]
    below = f"\n\n{_results.measured(rows)}"
    return {
        "deep_compression": _results.table(head, ratios) + below,
        "deep_compression steps": _results.table(["recipe", *HOOKS, "bits per parameter"], steps) + below,
    }


@command
def main() -> None:
    """Measure what is missing."""
    parser = described(__doc__)
    parser.add_argument("--recipes", nargs="+", default=list(PUBLISHED), choices=PUBLISHED)
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--jobs", type=positive, default=2, help="recipes and seeds at a time, each on one thread")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=FILE)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)  # measure this one here
    options = parser.parse_args()
    console.quiet = True
    if options.seed is not None:
        (recipe,) = options.recipes
        row = kept(
            options.results,
            {"recipe": recipe, "seed": options.seed},
            partial(measure, recipe, options.seed, options.output),
        )
        say(f"{recipe}, seed {options.seed}: {row['ratio']:.2f} times smaller, {row['difference']:+.2f} points")
        return
    shared = [f"--output={options.output}", f"--results={options.results}", "--recipes"]
    work = {
        f"{recipe.replace('/', '-')}-{seed}": [f"--seed={seed}", *shared, recipe]
        for recipe in options.recipes
        for seed in range(options.seeds)
    }
    at_once(work, options.output / "deep_compression", options.jobs, "benchmarks.deep_compression")


if __name__ == "__main__":
    main()
