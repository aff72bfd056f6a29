"""Deep Compression (Han, Mao & Dally, arXiv:1510.00149) on other data: how many times smaller without loss of accuracy.

    python -m benchmarks.deep_compression [--recipes digits/deep_compression_lenet5 ...] [--seeds 3] [--jobs 2]

Prunes, shares and codes as the recipes say. Finished steps are kept in ``OUTPUT``, so that the command goes on where it
was stopped, and another codec codes again without training. Writes docs/benchmarks/deep_compression.md.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks._jobs import at_once, spread
from benchmarks._page import measured_here, write_page
from benchmarks.compression import test
from distill.console import console, quiet_libraries
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import compress, train_student
from distill.recipe.loading import load
from distill.recipe.plain import key, plain
from distill.recipe.schema import Recipe

PAGE = Path("docs/benchmarks/deep_compression.md")
PUBLISHED = {
    "digits/deep_compression_lenet300": "40 (MNIST)",
    "digits/deep_compression_lenet5": "39 (MNIST)",
    "digits/deep_compression_resnet20": "",
    "fashion_mnist/deep_compression_lenet300": "40 (MNIST)",
    "fashion_mnist/deep_compression_lenet5": "39 (MNIST)",
}
"""By recipe, how many times smaller the paper's network of that name becomes, and on which data."""


@dataclass(frozen=True)
class Measured:
    """One recipe with one seed."""

    student: str
    samples: int
    """Images trained on."""
    params: int
    dense: float
    """Accuracy on the test split before compression, in percent."""
    small: float
    """The same after it."""
    bytes: dict[str, int]
    """Of the file after each hook, by the hook's name."""

    @property
    def ratio(self) -> float:
        """Bytes of the parameters in float32 to those of the whole file."""
        return 4 * self.params / self.bytes["encode"]


def measure(recipe: str, seed: int, output: Path) -> Measured:
    """Train, compress and evaluate; what earlier calls have finished is reused."""
    with Experiment.open(loaded(recipe, seed, output)) as experiment:
        stages = train_student(experiment, {})
        trained = list(stages.values())[-1]
        done = compress(experiment, trained, stages)
        return Measured(
            student=experiment.recipe.student.name,
            samples=experiment.data.samples,
            params=trained.step.params,
            dense=test(experiment, trained.artifact.model),
            small=test(experiment, list(done.values())[-1].artifact.model),
            bytes={name.partition("-")[2]: one.step.bytes for name, one in done.items()},
        )


def loaded(recipe: str, seed: int, output: Path) -> Recipe:
    return load(recipe, [f"seed={seed}", f"output={output}", "tracking.mode=disabled"])


def kept(output: Path, recipe: str, seed: int) -> Path:
    """Where a result is kept: another place for every setting of the recipe, defaults of hooks among them."""
    name = f"{recipe.replace('/', '-')}-{seed}-{key(plain(loaded(recipe, seed, output)))}"
    return output / "deep_compression" / f"{name}.json"


def page(results: Mapping[str, list[Measured]], seeds: int) -> Iterator[str]:
    """Lines of Markdown."""
    yield "# Deep Compression on other data than the paper's"
    yield ""
    yield f"`python -m benchmarks.deep_compression --seeds {seeds}` on {measured_here()};"
    yield f"mean ± standard deviation over seeds 0 to {seeds - 1}. The published ratios are those of Han, Mao & Dally,"
    yield "arXiv:1510.00149, table 1, on MNIST; these networks learned other images, named by the recipe. A ratio is"
    yield "that of all parameters as float32 to the whole file, with biases, header and checksums. Settings were chosen"
    yield "on the validation split; accuracy is top-1 on the test split, in percent."
    yield ""
    columns = "recipe | network | training images | parameters | ratio | published | test, dense | test, compressed"
    yield f"| {columns} | difference, points |\n{'|---' * 9}|"
    for recipe, some in results.items():
        one = some[0]
        dense, small = [m.dense for m in some], [m.small for m in some]
        cells = [
            *(recipe, one.student, f"{one.samples:,}", f"{one.params:,}", spread([m.ratio for m in some])),
            *(PUBLISHED[recipe], spread(dense), spread(small)),
            spread([after - before for before, after in zip(dense, small, strict=True)]),
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield "What each step leaves, in bytes of the file (the middle one of the seeds) and bits per parameter:"
    yield f"\n| recipe | prune | cluster | encode | bits per parameter |\n{'|---' * 5}|"
    for recipe, some in results.items():
        steps = [statistics.median_low([m.bytes[hook] for m in some]) for hook in ("prune", "cluster", "encode")]
        yield f"| {recipe} | {' | '.join(f'{size:,}' for size in steps)} | {8 * steps[-1] / some[0].params:.2f} |"


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=list(PUBLISHED), choices=PUBLISHED)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="recipes and seeds at a time, each on one thread")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)  # measure this one here
    options = parser.parse_args()
    quiet_libraries()
    if options.seed is not None:
        (recipe,) = options.recipes
        file = kept(options.output, recipe, options.seed)
        file.write_text(json.dumps(asdict(measure(recipe, options.seed, options.output))))
        return
    console.quiet = True
    every = [(recipe, seed) for recipe in options.recipes for seed in range(options.seeds)]
    files = {pair: kept(options.output, *pair) for pair in every}
    shared = [f"--output={options.output}", "--recipes"]
    work = {file.stem: [f"--seed={seed}", *shared, recipe] for (recipe, seed), file in files.items()}
    missing = {file.stem for file in files.values() if not file.exists()}
    at_once(
        {name: arguments for name, arguments in work.items() if name in missing},
        options.output / "deep_compression",
        options.jobs,
        "benchmarks.deep_compression",
    )
    results: dict[str, list[Measured]] = {}
    for (recipe, seed), file in files.items():
        if not file.exists():
            sys.exit(f"{recipe}, seed {seed} failed: {file.with_suffix('.log')}")
        results.setdefault(recipe, []).append(Measured(**json.loads(file.read_text())))
    write_page(options.page, page(results, options.seeds))


if __name__ == "__main__":
    main()
