"""The metrics of networks on a split."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import Metric

from distill.batch import Batch, Predict
from distill.errors import TrainingError
from distill.tasks import Task


@torch.inference_mode()
def evaluate(
    networks: Mapping[str, Predict],
    batches: Iterable[Batch],
    task: Task,
    figures: Mapping[str, Mapping[str, Metric]] | None = None,
    reference: str | None = None,
) -> dict[str, dict[str, float]]:
    """Read ``batches`` once and compute the task's metrics of every network.

    Args:
        networks: from a batch of inputs to outputs, by name.
        batches: the split.
        task: what an output means.
        figures: network -> figures of the task, to be updated in the same pass.
        reference: the network, one of them, whose outputs those of all others are compared with.

    Returns:
        network -> metric -> value; empty where there are no batches.

    Raises:
        RecipeError: the labels are of another kind than the task's.
    """
    metrics = {name: task.metrics() for name in networks}
    compared = [name for name in networks if reference in networks and name != reference]
    fidelity = {name: found for name in compared if (found := task.fidelity())}
    empty = True
    for batch in batches:
        if empty:
            task.check_labels(batch)
            empty = False
        outputs = {name: predict(batch.inputs).cpu() for name, predict in networks.items()}
        for name, output in outputs.items():
            task.update(metrics[name], output, batch)
            for figure in (figures or {}).get(name, {}).values():
                task.update(figure, output, batch)
            if name in fidelity:
                task.compare(fidelity[name], output, outputs[str(reference)])
    if empty:
        return {name: {} for name in networks}
    nearness = {name: numbers(one.compute()) for name, one in fidelity.items()}
    return {name: numbers(one.compute()) | nearness.get(name, {}) for name, one in metrics.items()}


def score(network: Predict, batches: DataLoader[Batch], task: Task) -> dict[str, float]:
    """The metrics of one network on a split, by name; empty if the split is."""
    return evaluate({"": network}, batches, task)[""] if len(batches) else {}


def numbers(computed: Mapping[str, Any]) -> dict[str, float]:
    """Of what metrics compute, the single numbers; vectors, such as a value for each class, are left out."""
    scalars = {name: value for name, value in computed.items() if not isinstance(value, Tensor) or value.dim() == 0}
    return {name: float(value) for name, value in scalars.items()}


def without_nan(predict: Predict, name: str) -> Predict:
    """The same answers; NaN among them is an error.

    Raises:
        TrainingError: when it is called; names the network.
    """

    def checked(inputs: Tensor) -> Tensor:
        output = predict(inputs)
        if output.isnan().any():
            raise TrainingError(
                f"{name}: the network answers NaN on the validation split, though its weights are finite: lower "
                "optimizer.lr, or look at the running statistics of its batch norms"
            )
        return output

    return checked


def to_accelerator(model: nn.Module) -> Predict:
    """The model in eval mode where its inputs lie; those on the CPU are moved to the accelerator."""
    fastest = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model = model.to(fastest).eval()

    def predict(inputs: Tensor) -> Tensor:
        device = fastest if inputs.device.type == "cpu" else inputs.device  # of several, the one of this process
        output: Tensor = model.to(device)(inputs.to(device, non_blocking=True))
        return output

    return predict
