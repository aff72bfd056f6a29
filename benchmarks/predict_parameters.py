"""Predicted parameters (Denil et al., arXiv:1306.0543) beside svd at equal size, before and after fine-tuning.

    python -m benchmarks.predict_parameters [--networks lenet300 ...] [--parts 0.5 0.25] [--seeds 3]

Trains the networks as the recipes of deep compression for Fashion-MNIST do, keeps a part of their parameters by each
hook, and trains what is left for two epochs. A dictionary that is stored counts as parameters. Finished steps are kept
in ``OUTPUT``, so that the command goes on where it was stopped. Writes docs/benchmarks/predict_parameters.md.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low

from benchmarks._jobs import spread
from benchmarks._page import measured_here, write_page
from benchmarks.compression import test
from distill.console import console, quiet_libraries
from distill.errors import RecipeError
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import compress, train_student
from distill.recipe.loading import load

PAGE = Path("docs/benchmarks/predict_parameters.md")
NETWORKS = ("lenet300", "lenet5")
HOOKS = {
    "svd": "svd: {{{}}}",
    "predict_parameters": "predict_parameters: {{{}}}",
    "predict_parameters, spatial": "predict_parameters: {{kernel: spatial, {}}}",
    "predict_parameters, covariance": "predict_parameters: {{kernel: covariance, {}}}",
}
FINETUNE = "finetune: {epochs: 2, optimizer: {lr: 0.01, weight_decay: 5e-4, nesterov: true}}"


@dataclass(frozen=True)
class Compressed:
    """A network after one hook."""

    bytes: int
    dense: float
    """Accuracy on the test split before the hook, in percent."""
    plain: float
    """The same right after it."""
    tuned: float
    """The same after fine-tuning."""


def measured(network: str, hook: str, part: float, seed: int, output: Path) -> Compressed:
    """One hook on one network."""
    found = []
    for training in ("", FINETUNE):
        entry = HOOKS[hook].format(", ".join(filter(None, [f"max_params: {part}", training])))
        settings = [f"seed={seed}", f"output={output}", "tracking.mode=disabled", f"compress={{{entry}}}"]
        with Experiment.open(load(f"fashion_mnist/deep_compression_{network}", settings)) as experiment:
            trained = list(train_student(experiment, {}).values())[-1]
            (done,) = compress(experiment, trained, {}).values()
            found.append((done.step.bytes, *(test(experiment, one.artifact.model) for one in (trained, done))))
    (size, dense, plain), (*_, tuned) = found
    return Compressed(size, dense, plain, tuned)


def rows(options: argparse.Namespace) -> Iterator[str]:
    """Lines of the table."""
    for network in options.networks:
        for part in options.parts:
            for hook in HOOKS:
                cells = [network, f"{part:g}", hook]
                try:
                    some = [measured(network, hook, part, seed, options.output) for seed in range(options.seeds)]
                except RecipeError as error:  # small layers have no option that is a so small part of them
                    yield f"| {' | '.join(cells)} | {error} | | | |"
                    continue
                columns = defaultdict(list)
                for one in some:
                    for name in ("dense", "plain", "tuned"):
                        columns[name].append(getattr(one, name))
                cells += [f"{median_low([one.bytes for one in some]):,}", *map(spread, columns.values())]
                yield f"| {' | '.join(cells)} |"


def page(options: argparse.Namespace) -> Iterator[str]:
    """Lines of Markdown."""
    yield "# Predicted parameters beside svd at equal size"
    yield ""
    yield f"`python -m benchmarks.predict_parameters --seeds {options.seeds}` on {measured_here()};"
    yield "Fashion-MNIST as in the recipes of deep compression; mean ± standard deviation over"
    yield f"seeds 0 to {options.seeds - 1} of top-1 accuracy on the test split."
    yield "Both hooks get the same `max_params`; a stored dictionary counts as parameters. Bytes are those of the file."
    yield "Without `kernel`, `predict_parameters` takes the better dictionary for each layer. Fine-tuning: two epochs."
    yield ""
    yield "| network | part of parameters | hook | bytes | dense, % | after the hook, % | after fine-tuning, % |"
    yield "|---" * 7 + "|"
    yield from rows(options)


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--parts", nargs="+", type=float, default=[0.5, 0.25])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    quiet_libraries()
    console.quiet = True
    write_page(options.page, page(options))


if __name__ == "__main__":
    main()
