"""What a student learns from photographs without labels: how far it agrees with its teacher on photographs that were
held out, and what its features are worth on labels that nobody trained it for.

    python -m benchmarks.unlabelled --seeds 3
    python -m benchmarks.unlabelled data.samples=500 --results /tmp/try.jsonl

A probe is a logistic regression on the frozen input of a network's classifier, on 5,000 training images of
Fashion-MNIST, enlarged to the size of the recipe's pictures; another 1,000 choose its regularisation, and the test
split is read once. The teacher, the student untrained and distilled, and bare pixels go through the same probe. Each
network is one line of ``benchmarks/results/unlabelled.jsonl``, and what is there is not measured again; `python -m
benchmarks.tables` makes the table.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from benchmarks._command import command, described
from benchmarks._jobs import spread
from benchmarks._page import measured_here
from benchmarks._results import RESULTS, Row, append, read, table
from distill.cli.arguments import positive
from distill.console import console
from distill.data import DataInfo, _idx
from distill.data._find import find
from distill.data._in_memory import Labelled
from distill.data.fashion_mnist import ORIGIN
from distill.measure.evaluation import score, to_accelerator
from distill.models import cost
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import train_student, train_teachers
from distill.recipe.loading import load

FILE = RESULTS / "unlabelled.jsonl"
IDENTITY = ("recipe", "overrides", "network", "seed")
NETWORKS = {"teacher": "teacher", "untrained": "student, untrained", "distilled": "student, distilled"}
PIXELS = "pixels"
TRAINED_ON, CHOSEN_ON = 5000, 1000
"""Images of the probe's training set, and those that choose its regularisation."""
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Inverse regularisation, scikit-learn's C, of standardised features."""
BATCH = 250
Features = Callable[[Tensor], Tensor]
"""From grey images (batch, 1, 28, 28) of bytes to vectors."""


@dataclass(frozen=True)
class Subject:
    """A recipe, how it is changed, and where measurements are kept."""

    recipe: str
    overrides: tuple[str, ...]
    output: Path
    file: Path

    def measure(self, seed: int) -> None:
        """What is missing of this seed; teacher and pixels are the same for all."""
        known = {row["network"] for row in read(self.file, IDENTITY) if self._is_of(row, seed)}
        wanted = [*([PIXELS, "teacher"] if seed == 0 else []), "untrained", "distilled"]
        if missing := [name for name in wanted if name not in known]:
            for name, row in self._measured(missing, seed):
                about = {"recipe": self.recipe, "overrides": " ".join(self.overrides), "network": name, "seed": seed}
                append(self.file, {**about, **row, "measured": measured_here()})
                print(name, seed, row, flush=True)

    def _is_of(self, row: Row, seed: int) -> bool:
        return (row["recipe"], row["overrides"], row["seed"]) == (self.recipe, " ".join(self.overrides), seed)

    def _measured(self, names: Sequence[str], seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
        changed = [*self.overrides, f"seed={seed}", f"output={self.output}", "tracking.mode=disabled"]
        with Experiment.open(replace(load(self.recipe, changed), compress={}, export={})) as experiment:
            for name in names:
                if name == PIXELS:
                    yield name, {"test": {}, "probe": probed(lambda images: images.flatten(1).float())}
                    continue
                model, seconds = _network(experiment, name)
                info = experiment.data.info
                yield (
                    name,
                    {
                        "test": score(to_accelerator(model), experiment.data.test_dataloader(), experiment.task),
                        "probe": probed(lambda images, model=model, info=info: features(model, enlarged(images, info))),
                        "cpu_seconds": seconds,
                        "params": cost.params(model),
                        "macs": cost.macs(model, experiment.example.inputs[:1]),
                    },
                )


def _network(experiment: Experiment, name: str) -> tuple[nn.Module, float | None]:
    """A network and the CPU seconds of its training; None where there was none in this process."""
    if name == "untrained":
        return experiment.network(experiment.recipe.student).copy_model().eval(), None
    teachers = train_teachers(experiment)
    if name == "teacher":
        return teachers["teacher"].artifact.copy_model().eval(), None
    started = time.process_time()
    done = [*train_student(experiment, teachers).values()][-1]
    seconds = None if done.reused else round(time.process_time() - started, 1)
    return done.artifact.copy_model().eval(), seconds


def enlarged(images: Tensor, info: DataInfo) -> Tensor:
    """Grey bytes as inputs of a network: in three colours, of the size of its data, normalised."""
    pixels = F.interpolate(images.float() / 255, info.image_size, mode="bilinear").expand(-1, info.channels, -1, -1)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (info.mean, info.std))
    return (pixels - mean) / std


@torch.inference_mode()
def features(model: nn.Module, inputs: Tensor) -> Tensor:
    """What the classifier, the last linear layer, reads."""
    found: list[Tensor] = []
    classifier = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with classifier.register_forward_pre_hook(lambda _, arguments: found.append(arguments[0])):
        model(inputs)
    return found[0]


def probed(vectors: Features) -> dict[str, float]:
    """Accuracy of a linear classifier on vectors of images, and the regularisation that was chosen."""
    (train, labels), (test, test_labels) = ((_all(vectors, part.images), part.labels.numpy()) for part in images())
    held_out = slice(TRAINED_ON, TRAINED_ON + CHOSEN_ON)

    def fitted(strength: float) -> Pipeline:
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
        return classifier.fit(train[:TRAINED_ON], labels[:TRAINED_ON])

    tried = {strength: fitted(strength) for strength in STRENGTHS}
    found = {strength: one.score(train[held_out], labels[held_out]) for strength, one in tried.items()}
    best = max(found, key=found.__getitem__)
    return {"accuracy": round(float(tried[best].score(test, test_labels)), 4), "C": best}


def _all(vectors: Features, images: Tensor) -> Any:
    return torch.cat([vectors(part) for part in images.split(BATCH)]).numpy()


@cache
def images() -> tuple[Labelled, Labelled]:
    """Fashion-MNIST: as many training images as a probe needs, and the test split."""
    train, test = _idx.read(ORIGIN, find(ORIGIN, None))
    count = TRAINED_ON + CHOSEN_ON
    return Labelled(train.images[:count], train.labels[:count]), test


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """The table of each recipe as it stands."""
    plain = [row for row in rows if not row["overrides"]]
    names = dict.fromkeys(row["recipe"] for row in plain)
    return {f"unlabelled {name}": _table([row for row in plain if row["recipe"] == name]) for name in names}


def _table(rows: Sequence[Row]) -> str:
    lines = []
    for network, title in {**NETWORKS, PIXELS: "bare pixels, no network"}.items():
        if some := [row for row in rows if row["network"] == network]:
            percent = [
                _shown(some, lambda row, key=key: 100 * row["test"][key]) for key in ("agreement", "top5_agreement")
            ]
            costs = [f"{some[0][key]:,}" if key in some[0] else "-" for key in ("params", "macs")]
            probe = spread([100 * row["probe"]["accuracy"] for row in some])
            lines.append([title, str(len(some)), *costs, *percent, _shown(some, lambda row: row["test"]["kl"]), probe])
    agreement = ["agreement with the teacher, %", "its class among the five, %", "KL, nats"]
    header = ["", "seeds", "parameters", "MACs", *agreement, "linear probe on Fashion-MNIST, %"]
    trained = [row["cpu_seconds"] for row in rows if row.get("cpu_seconds")]
    seconds = (
        f"One training takes {statistics.median(trained):.0f} CPU seconds, the teacher's included. " if trained else ""
    )
    return f"{table(header, lines)}\n\n{seconds}{rows[-1]['measured']}."


def _shown(rows: Sequence[Row], value: Callable[[Row], float]) -> str:
    return spread([value(row) for row in rows]) if rows[0]["test"] else "-"


@command
def main() -> None:
    """Measure what is missing, seed by seed."""
    parser = described(__doc__)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="what differs from the recipe")
    parser.add_argument("--recipe", default="unlabelled/photographs")
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs"), help="for work under way")
    parser.add_argument("--results", type=Path, default=FILE)
    options = parser.parse_intermixed_args()
    console.quiet = True
    torch.set_num_threads(1)
    subject = Subject(options.recipe, tuple(options.overrides), options.output, options.results)
    for seed in range(options.seeds):
        subject.measure(seed)


if __name__ == "__main__":
    main()
