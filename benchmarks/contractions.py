"""One network, several ways to run its factors: accuracy and milliseconds.

    pip install -e '.[openvino]'
    python -m benchmarks.compression        # first: it makes the networks
    python -m benchmarks.contractions [--students resnet20 ...]

Tensor trains run as `tensor_train` cuts them, core by core as textbooks do, and with the dense weight rebuilt; beside
them `svd` and `tt_matrix`, chosen for speed, and plain singular value decompositions at three budgets. Networks of seed
0 are timed, interleaved; accuracies are those of all seeds. Prints Markdown tables.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import _race
from benchmarks._jobs import say, spread
from benchmarks.compression import STUDENTS, WAYS, calibration, results
from distill.artifact import Artifact, open_artifact
from distill.batch import Batch
from distill.compress.low_rank.tensor_train import TensorTrain
from distill.console import quiet_libraries

CUT = "tensor_train, speed"
COMPARED = ["fp32", "svd, speed", CUT, "tt_matrix, speed", *(way for way in WAYS if way.startswith("plain svd"))]


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


def entrants(options: argparse.Namespace, student: str, samples: list[Batch]) -> dict[str, _race.Entrant]:
    """All ways to run that student's networks of seed 0."""
    found = {way: results(options, student, way) for way in COMPARED}
    artifacts: dict[str, Artifact] = {way: open_artifact(Path(one[0].artifact)) for way, one in found.items() if one}
    if CUT in artifacts:
        for title, form in (("the same, core by core", textbook), ("the same, rebuilt", rebuilt)):
            artifacts[title] = replace(artifacts[CUT], model=form(artifacts[CUT].copy_model()))
    return {title: _race.exported(artifact, samples) for title, artifact in artifacts.items()}


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", nargs="+", default=["resnet20", "mobilenet_v2"], choices=STUDENTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs"))
    options = parser.parse_args()
    quiet_libraries()
    samples = calibration()
    for student in options.students:
        say(f"\n{student}\n\n| network | test, % | parameters | MACs |\n|---|---|---|---|")
        for way in COMPARED:
            if found := results(options, student, way):
                say(f"| {way} | {spread([one.test for one in found])} | {found[0].params:,} | {found[0].macs:,} |")
        say("\nMilliseconds (times as fast as fp32)\n")
        for line in _race.lines(_race.race(entrants(options, student, samples), samples[0].inputs), "fp32"):
            say(line)


if __name__ == "__main__":
    main()
