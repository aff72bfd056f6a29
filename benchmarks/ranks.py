"""What a choice of ranks is worth: accuracy of factorised networks, without any training after it.

    python -m benchmarks.ranks [--networks resnet20 mobilenet_v2 ...] [--hooks svd tensor_train ...] [--seeds 3]

Trains each network on a part of Fashion-MNIST, then factorises it to several sizes: with the same part of every layer
(``uniform``), and with ranks chosen for the whole network by errors of weights (``none``), of layers' outputs
(``inputs``) and of the network's output (``outputs``). Trained networks are kept in ``OUTPUT``; each factorisation is a
line of ``benchmarks/results/ranks.jsonl`` and is not made again. `python -m benchmarks.tables` makes the table of
docs/benchmarks/ranks.md.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice, product

from torch import nn

from benchmarks import _results
from benchmarks._command import command, described
from benchmarks._jobs import parsed
from benchmarks._over_seeds import grouped, mean, shown
from benchmarks._results import RESULTS, Row, kept
from distill.artifact import Artifact
from distill.batch import Batch
from distill.cli.arguments import positive
from distill.compress import hook
from distill.compress.low_rank import _matrices, cp, tensor_train, tucker
from distill.compress.low_rank._allocation import Allocation, Goal, LayersOptions
from distill.compress.low_rank._factorise import Factorisation
from distill.errors import RecipeError
from distill.measure.evaluation import score, to_accelerator
from distill.models.cost import macs
from distill.models.surgery import deployable
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import CALIBRATION_SAMPLES, train_teachers
from distill.recipe.loading import load

FILE = RESULTS / "ranks.jsonl"
IDENTITY = ("network", "limit", "hook", "part", "choice", "seed")
DENSE = "dense"
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


@contextmanager
def judge(network: str, settings: list[str]) -> Iterator[Callable[[str, float, str], Row]]:
    """What measures a hook, a part of parameters and a choice of ranks: test accuracy in percent and the part of MACs
    that is left, both None if the layers have no option that is a so small part of them."""
    recipe = load(RECIPE, [*settings, "tracking.mode=disabled", f"teacher={NETWORKS[network]}"])
    with Experiment.open(recipe) as experiment:
        artifact = train_teachers(experiment)["teacher"].artifact
        batches = experiment.data.calibration(CALIBRATION_SAMPLES)
        test = list(islice(experiment.data.test_dataloader(), TEST // experiment.data.batch_size))

        def judged(kind: str, part: float, choice: str) -> Row:
            try:
                made = artifact if kind == DENSE else smaller(kind, artifact, batches, part, choice)
            except RecipeError:
                return {"accuracy": None, "macs": None}
            plain = deployable(made.model)
            left = macs(plain, batches[0].inputs) / macs(artifact.model, batches[0].inputs)
            return {"accuracy": 100 * score(to_accelerator(plain), test, experiment.task)["accuracy"], "macs": left}

        yield judged


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """The table by its name on pages, if there are rows for it."""
    by_choice = grouped(rows, "network", "limit", "hook", "part", "choice")
    lines = []
    for network, limit, kind, part in dict.fromkeys(key[:-1] for key in by_choice):
        some = [by_choice.get((network, limit, kind, part, choice)) for choice in CHOICES]
        if kind == DENSE:
            lines.append([network, DENSE, "1", "1", *(_accuracy(one) for one in some)])
        elif last := some[-1]:
            lines.append([network, kind, f"{part:g}", f"{mean(last, 'macs'):.2f}", *map(_accuracy, some)])
    head = ["network", "hook", "parameters", f"MACs ({CHOICES[-1]})", *(f"{choice}, %" for choice in CHOICES)]
    return {"ranks": f"{_results.table(head, lines)}\n\n{_results.measured(rows)}"} if rows else {}


def _accuracy(rows: Sequence[Row] | None) -> str:
    if not rows:
        return ""
    return "none" if any(row["accuracy"] is None for row in rows) else shown(rows, "accuracy")


@command
def main() -> None:
    """Train, factorise and judge what is missing."""
    parser = described(__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--hooks", nargs="+", default=["svd", "tensor_train"], choices=BUILD)
    parser.add_argument("--limit", type=positive, default=10_000, help="images to train on and to validate with")
    options = parsed(parser, FILE)
    every = [(DENSE, 1.0, CHOICES[0]), *product(options.hooks, PARTS, CHOICES)]
    for network, seed in product(options.networks, range(options.seeds)):
        settings = [f"seed={seed}", f"output={options.output}", f"data.limit={options.limit}"]
        with judge(network, settings) as judged:
            for kind, part, choice in every:
                named = {"network": network, "limit": options.limit, "hook": kind, "part": part, "choice": choice}
                kept(options.results, {**named, "seed": seed}, partial(judged, kind, part, choice))


if __name__ == "__main__":
    main()
