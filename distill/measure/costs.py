"""What an artifact costs on paper: dense, and where zeros and shared values cost nothing."""

from typing import TypedDict

from torch import Tensor

from distill.artifact import Artifact
from distill.artifact.storage import Tied
from distill.models import cost
from distill.models.surgery import deployable

CLEARLY = 0.95
"""Of the dense count: rounded to 8 bits, a few weights in a hundred are zeros too."""


class Costs(TypedDict):
    """Fields of a `Step`."""

    params: int
    macs: int
    effective_params: int | None
    effective_macs: int | None


def costs(artifact: Artifact, example: Tensor) -> Costs:
    """Parameters and MACs for one image; effective ones only where they are clearly fewer.

    Args:
        artifact: in any form.
        example: (batch, channels, height, width); its first image is used.
    """
    network = deployable(artifact.model)
    params, macs = cost.params(artifact.model), cost.macs(network, example)
    effective_params, effective_macs = _parameters(artifact), cost.effective_macs(network, example)
    return {
        "params": params,
        "macs": macs,
        "effective_params": effective_params if effective_params <= CLEARLY * params else None,
        "effective_macs": effective_macs if effective_macs <= CLEARLY * macs else None,
    }


def _parameters(artifact: Artifact) -> int:
    count = 0
    for name, parameter in artifact.model.named_parameters():
        form = artifact.stored.get(name)
        count += form.parameters() if isinstance(form, Tied) else cost.nonzero(artifact.model, name, parameter)
    return count
