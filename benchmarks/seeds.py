"""One recipe with several seeds: mean and standard deviation of every row of its table.

    python -m benchmarks.seeds quickstart --seeds 3
    python -m benchmarks.seeds fashion_mnist/resnet20_shufflenet data.limit=20000 --seeds 3
    python -m benchmarks.seeds fashion_mnist/resnet20_shufflenet --seeds 1

Finished steps are reused, so the command can be stopped and started again. Prints a Markdown table.
"""

import argparse
import statistics
from collections.abc import Sequence

from distill.artifact.step import Step
from distill.console import quiet_libraries
from distill.pipeline.run import run
from distill.recipe.loading import load


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="what differs from the recipe")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", default="runs")
    options = parser.parse_intermixed_args()
    quiet_libraries()
    overrides = [f"output={options.output}", *options.overrides]
    runs = [run(load(options.recipe, [*overrides, f"seed={seed}"])).steps for seed in range(options.seeds)]
    print("| step | parameters | MACs | bytes | test accuracy, % | batch 1, ms | batch 32, ms | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for rows in zip(*runs, strict=True):
        print(row(rows))


def row(rows: Sequence[Step]) -> str:
    """One step over all seeds: mean and standard deviation of accuracy, medians of the rest."""

    def middle(values: Sequence[float]) -> float:
        return statistics.median(values)

    first = rows[0]
    accuracy = [100 * step.metrics["test/accuracy"] for step in rows]
    spread = f" ± {statistics.stdev(accuracy):.2f}" if len(rows) > 1 else ""
    latency = [f"{middle([step.latency_ms[key] for step in rows]):.2f}" for key in ("batch1", "batch32")]
    size = f"{middle([step.bytes for step in rows]):,.0f}"
    seconds = f"{middle([step.seconds for step in rows]):.0f}"
    cells = [first.step, f"{first.params:,}", f"{first.macs:,}", size, f"{statistics.mean(accuracy):.2f}{spread}"]
    return f"| {' | '.join([*cells, *latency, seconds])} |"


if __name__ == "__main__":
    main()
