"""What a network scores on a split."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import Metric, MetricCollection

from distill.batch import Batch, Predict


@torch.inference_mode()
def evaluate(
    networks: Mapping[str, Predict], batches: Iterable[Batch], metrics: Callable[[str], MetricCollection | Metric]
) -> dict[str, MetricCollection | Metric]:
    """Read ``batches`` once and score every network on each.

    Args:
        networks: name -> what answers a batch of inputs: a module in eval mode, or an exported file's session.
        batches: the split.
        metrics: makes a fresh metric for the network of that name.

    Returns:
        name -> the metric with everything counted; ``.compute()`` gives its values.
    """
    scores = {name: metrics(name) for name in networks}
    for batch in batches:
        for name, predict in networks.items():
            scores[name].update(predict(batch.inputs).cpu(), batch.labels)
    return scores


def score(network: Predict, batches: DataLoader[Batch], metrics: Callable[[], MetricCollection]) -> dict[str, float]:
    """The metrics of one network on a split, by name; empty if the split is."""
    if not len(batches):
        return {}
    scores = evaluate({"": network}, batches, lambda _: metrics())
    return {name: float(value) for name, value in scores[""].compute().items()}


def to_accelerator(model: nn.Module) -> Predict:
    """The model in eval mode where it runs fastest; inputs are moved to it."""
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model = model.to(device).eval()
    return lambda inputs: model(inputs.to(device))
