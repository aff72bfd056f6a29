"""The artifact with its graph, for `distill.runtime`, which needs NumPy and the decoders' libraries alone."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.artifact.artifact import state_of
from distill.batch import Batch
from distill.errors import ExportError
from distill.export import exporter
from distill.export.exported import TOLERANCE, Exported, compared, to_export
from distill.export.graph import graph_of
from distill.files.atomic import replacing
from distill.registry.ranges import NonNegative
from distill.runtime import Network, load
from distill.runtime.graph import Graph
from distill.tasks import Task


@exporter("runtime")
def runtime(
    artifact: Artifact,
    folder: Path,
    samples: list[Batch],
    task: Task,
    *,
    tolerance: NonNegative | None = None,
) -> Exported:
    """Write ``folder/student.runtime.safetensors``: the artifact's own file, weights coded as they are, and its graph.

    Args:
        artifact: the compressed student.
        folder: where the file goes.
        samples: real images, on which the file is checked against PyTorch in NumPy.
        task: how outputs are compared.
        tolerance: largest difference allowed on the samples, relative to the largest output; None: 0.001, or after
            `int8` 0.1 of all but one value in a hundred, and an agreement of 95 %.

    Raises:
        ExportError: the network has an operator that the runtime has not, or its file computes something else.
    """
    model = to_export(artifact, samples, "runtime")
    path = folder / "student.runtime.safetensors"
    with replacing(path, ExportError) as part:
        part.write_bytes(written(artifact, samples[0].inputs))
        network = load(part)
        predict = partial(_answer, network)
        difference, agreement = compared(model, predict, samples, task, path, "export.runtime.tolerance", tolerance)
    return Exported(path, predict, difference, agreement, single=lambda: predict)


def writable(artifact: Artifact, example: Tensor, task: Task) -> None:
    """See before any training that the runtime has the network's operators.

    Raises:
        ExportError: it has not.
    """
    graph_of(artifact.copy_model().cpu(), example, state_of(artifact.model))


def written(artifact: Artifact, example: Tensor) -> bytes:
    """The file's content: its graph is for inputs as large as the example, or where it is right for others, too, for
    all."""
    model = artifact.copy_model().cpu()
    graph = graph_of(model, example, state_of(model))
    free = replace(graph, input=None)
    return artifact.to_bytes((free if _is_right_for_larger(free, model, example) else graph).to_text())


@torch.no_grad()
def _is_right_for_larger(graph: Graph, model: nn.Module, example: Tensor) -> bool:
    """Whether it computes what the network does for inputs half as large again, of sizes that strides do not divide."""
    _, channels, height, width = example.shape
    size = (1, channels, height + height // 2 + 1, width + width // 2 + 3)
    larger, stored = torch.randn(size, generator=torch.Generator().manual_seed(0)), state_of(model)
    try:
        expected = model(larger)
        found = _answer(Network(graph, lambda name: stored[name].numpy(), {}), larger)
    except Exception:  # networks and operators refuse sizes in many ways
        return False
    return found.shape == expected.shape and bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())


def _answer(network: Network, inputs: Tensor) -> Tensor:
    return torch.from_numpy(network(inputs.cpu().numpy()))
