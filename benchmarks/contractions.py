"""One network, several ways to run its factors: accuracy and milliseconds.

    pip install -e '.[openvino]'
    python -m benchmarks.compression        # first: it makes the networks
    python -m benchmarks.contractions [--students resnet20 ...]

Tensor trains run as `tensor_train` cuts them, core by core as textbooks do, and with the dense weight rebuilt; beside
them `svd` and `tt_matrix`, chosen for speed, and plain singular value decompositions at three budgets. Networks of seed
0 are timed, interleaved; each student is a line of ``benchmarks/results/contractions.jsonl`` and is not timed again.
`python -m benchmarks.tables` makes the tables of docs/benchmarks/compression.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import _race
from benchmarks._command import command, described
from benchmarks._jobs import say
from benchmarks._results import RESULTS, Row, kept
from benchmarks.compression import FACTORS, STUDENTS, artifact_of, calibration
from distill.artifact import Artifact, open_artifact
from distill.batch import Batch
from distill.compress.low_rank.tensor_train import TensorTrain

FILE = RESULTS / "contractions.jsonl"
IDENTITY = ("student",)
CUT = "tensor_train, speed"
COMPARED = ("fp32", *FACTORS)


class Textbook(nn.Module):
    """A tensor train contracted core by core with its input, as Novikov et al. do: arXiv:1509.06569, section 3."""

    def __init__(self, train: TensorTrain) -> None:
        super().__init__()
        self.shape, self.geometry, self.bias = train.shape, train.geometry, train.bias
        self.cores = nn.ParameterList([core.detach().clone() for core in train.cores])
        self.kernel_size = getattr(train, "kernel_size", (1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, inputs) or (batch, inputs, height, width) in, the same with outputs out."""
        cores = list(self.cores)
        rows = inputs if self.geometry is None else self._on_grid(inputs).movedim(1, -1)
        *grid, channels = rows.shape
        state = rows.reshape(-1, channels, 1)
        for core in cores[: len(self.shape.inputs)]:
            rank, mode, _ = core.shape
            state = state.unflatten(1, (mode, -1)).permute(0, 2, 3, 1).flatten(2) @ core.reshape(rank * mode, -1)
        if self.shape.kernel > 1:
            images = state.reshape(*grid, -1).movedim(-1, 1)
            kernel = cores[len(self.shape.inputs)].permute(2, 0, 1).unflatten(2, self.kernel_size)
            rows = F.conv2d(images, kernel, **self.geometry).movedim(1, -1)
            *grid, rank = rows.shape
            state = rows.reshape(-1, 1, rank)
        for core in cores[len(cores) - len(self.shape.outputs) :]:
            rank, mode, after = core.shape
            state = (state @ core.reshape(rank, -1)).unflatten(2, (mode, after)).flatten(1, 2)
        outputs = state.reshape(*grid, -1) if self.bias is None else state.reshape(*grid, -1) + self.bias
        return outputs if self.geometry is None else outputs.movedim(-1, 1)

    def _on_grid(self, images: Tensor) -> Tensor:
        """Without the pixels that a 1 x 1 convolution skips; k x k ones skip theirs themselves."""
        if self.shape.kernel > 1:
            return images
        down, right = self.geometry["stride"]
        return images[:, :, ::down, ::right]


@torch.no_grad()
def textbook(model: nn.Module) -> nn.Module:
    """With every tensor train contracted core by core."""
    return _changed(model, Textbook)


@torch.no_grad()
def rebuilt(model: nn.Module) -> nn.Module:
    """With every tensor train multiplied out."""

    def dense(train: TensorTrain) -> nn.Module:
        train.runs_dense = True
        return train.deploy()

    return _changed(model, dense)


def _changed(model: nn.Module, change: Callable[[TensorTrain], nn.Module]) -> nn.Module:
    for path, train in [(path, m) for path, m in model.named_modules() if isinstance(m, TensorTrain)]:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, change(train))
    return model


def measure(output: Path, student: str, samples: list[Batch]) -> Row:
    """All ways to run that student's networks of seed 0."""
    files = {way: file for way in COMPARED if (file := artifact_of(output, student, way)).exists()}
    artifacts: dict[str, Artifact] = {way: open_artifact(file) for way, file in files.items()}
    if CUT in artifacts:
        for title, form in (("the same, core by core", textbook), ("the same, rebuilt", rebuilt)):
            artifacts[title] = replace(artifacts[CUT], model=form(artifacts[CUT].copy_model()))
    entrants = {title: _race.exported(artifact, samples) for title, artifact in artifacts.items()}
    return _race.race(entrants, samples[0].inputs, "fp32")


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """The race of each student, by its name on pages."""
    return {f"contractions {row['student']}": _race.table(row) for row in rows}


@command
def main() -> None:
    """Time what is missing."""
    parser = described(__doc__)
    parser.add_argument("--students", nargs="+", default=["resnet20", "mobilenet_v2"], choices=STUDENTS)
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=FILE)
    options = parser.parse_args()
    samples = calibration()
    for student in options.students:
        work = partial(measure, options.output, student, samples)
        say(_race.table(kept(options.results, {"student": student}, work)))


if __name__ == "__main__":
    main()
