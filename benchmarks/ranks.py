"""What a choice of ranks is worth: accuracy of factorised networks, without any training after it.

    python -m benchmarks.ranks [--networks resnet20 mobilenet_v2 ...] [--hooks svd tensor_train ...] [--seeds 3]

Trains each network on a part of Fashion-MNIST, then factorises it to several sizes: with the same part of every layer
(``uniform``), and with ranks chosen for the whole network by errors of weights (``none``), of layers' outputs
(``inputs``) and of the network's output (``outputs``). Trained networks are kept in ``OUTPUT``. Prints a
Markdown table.
"""

import argparse
import statistics
from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from math import isnan
from pathlib import Path

from torch import nn

from benchmarks._jobs import say, spread
from distill.artifact import Artifact
from distill.batch import Batch
from distill.compress import hook
from distill.compress.low_rank import _matrices, cp, tensor_train, tucker
from distill.compress.low_rank._allocation import Allocation, Goal, LayersOptions
from distill.compress.low_rank._factorise import Factorisation
from distill.console import console, quiet_libraries
from distill.errors import RecipeError
from distill.measure.evaluation import score, to_accelerator
from distill.models.cost import macs
from distill.models.surgery import deployable
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import CALIBRATION_SAMPLES, train_teachers
from distill.recipe.loading import load

RECIPE = "fashion_mnist/resnet20_shufflenet"
NETWORKS = {
    "resnet20": "{name: resnet20, epochs: 5}",
    "mobilenet_v2": "{name: mobilenet_v2, width: 0.5, small_images: true, epochs: 5}",
    "shufflenet_v2": "{name: shufflenet_v2, width: 0.5, small_images: true, epochs: 5}",
}
PARTS = (0.75, 0.5, 0.4, 0.3)
TEST = 2_560
"""Images to judge by, the first of the test split."""
CHOICES = ("uniform", "none", "inputs", "outputs")
BUILD = {"svd": _matrices.pair, "tensor_train": tensor_train.TensorTrain, "tucker": tucker.build, "cp": cp.build}


@dataclass(frozen=True)
class Uniform(Goal):
    """The same part of every layer, the largest with which the network is small enough."""

    def choose(self, by_layer: LayersOptions, total: dict[str, int], evaluate: object) -> Allocation:
        low, high, best = 0.0, 1.0, {}
        saved = (1 - self.max_params) * total["params"]
        for _ in range(20):
            part = (low + high) / 2
            choice = {
                path: max(fit, key=lambda option: option.params)
                for path, layer in by_layer.items()
                if (fit := [option for option in layer.options if option.params <= part * layer.dense.params])
            }
            if sum(by_layer[path].dense.params - option.params for path, option in choice.items()) >= saved:
                low, best = part, choice
            else:
                high = part
        if not best:
            raise RecipeError("no part is small enough")
        return best


def smaller(kind: str, artifact: Artifact, batches: list[Batch], part: float, choice: str) -> Artifact:
    """The artifact with so large a part of its parameters."""
    if choice == "uniform":
        factorisation = Factorisation(kind, hook.find(kind).__wrapped__, BUILD[kind])
        return factorisation.compress(artifact, no_judge, batches, Uniform(max_params=part), "none", None)
    return hook.find(kind)(artifact, no_judge, batches, max_params=part, weighting=choice)


def no_judge(model: nn.Module) -> float:
    raise AssertionError("a budget needs no judge")


def measured(network: str, kinds: list[str], settings: list[str]) -> dict[tuple[str, float, str], tuple[float, float]]:
    """Test accuracy in percent, and the part of MACs that is left, by hook, part of parameters and choice of ranks."""
    recipe = load(RECIPE, [*settings, "tracking.mode=disabled", f"teacher={NETWORKS[network]}"])
    with Experiment.open(recipe) as experiment:
        artifact = train_teachers(experiment)["teacher"].artifact
        batches = experiment.data.calibration(CALIBRATION_SAMPLES)
        batch_size = experiment.data.batch_size
        test = list(islice(experiment.data.test_dataloader(), TEST // batch_size))

        def judge(made: Artifact) -> tuple[float, float]:
            plain = deployable(made.model)
            left = macs(plain, batches[0].inputs) / macs(artifact.model, batches[0].inputs)
            return 100 * score(to_accelerator(plain), test, experiment.task)["accuracy"], left

        found = {("dense", 1.0, choice): judge(artifact) for choice in CHOICES[:1]}
        for kind in kinds:
            for part in PARTS:
                for choice in CHOICES:
                    try:
                        found[kind, part, choice] = judge(smaller(kind, artifact, batches, part, choice))
                    except RecipeError:  # small layers have no option that is a so small part of them
                        found[kind, part, choice] = (float("nan"), float("nan"))
        return found


def main() -> None:
    """Train, factorise, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--hooks", nargs="+", default=["svd", "tensor_train"], choices=BUILD)
    parser.add_argument("--limit", type=int, default=10_000, help="images to train on and to validate with")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs"))
    options = parser.parse_args()
    quiet_libraries()
    console.quiet = True
    say(f"| network | hook | parameters | MACs ({CHOICES[-1]}) | {', % | '.join(CHOICES)}, % |")
    say("|---" * (4 + len(CHOICES)) + "|")
    for network in options.networks:
        rows = defaultdict(list)
        for seed in range(options.seeds):
            settings = [f"seed={seed}", f"output={options.output}", f"data.limit={options.limit}"]
            for key, value in measured(network, options.hooks, settings).items():
                rows[key].append(value)
        say(f"| {network} | dense | 1 | 1 | {accuracy(rows['dense', 1.0, CHOICES[0]])} |" + " |" * (len(CHOICES) - 1))
        for kind in options.hooks:
            for part in PARTS:
                some = [rows[kind, part, choice] for choice in CHOICES]
                left = statistics.mean(left for _, left in some[-1])
                say(f"| {network} | {kind} | {part} | {left:.2f} | {' | '.join(map(accuracy, some))} |")


def accuracy(values: list[tuple[float, float]]) -> str:
    accuracies = [one for one, _ in values]
    return "none" if any(map(isnan, accuracies)) else spread(accuracies)


if __name__ == "__main__":
    main()
