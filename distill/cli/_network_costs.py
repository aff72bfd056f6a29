"""Parameters and MACs of every network at its default settings: recorded, since counting them imports torch.

``python -m benchmarks.network_costs`` records them again; a test compares the record with the networks.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from distill.registry.signatures import Signature
from students import student

RECORD = Path(__file__).with_name("network_costs.json")


@dataclass(frozen=True)
class NetworkCost:
    """Of one network, at its default settings."""

    params: int
    macs: int
    """Multiply-accumulates for one image."""
    size: int
    """Height and width of that image: the size that the network's paper has."""

    def __str__(self) -> str:
        return f"{self.params:,} parameters, {self.macs / 1e6:,.1f}M MACs at {self.size}x{self.size}"


def recorded() -> Mapping[str, NetworkCost]:
    """The record, by name; a new network is missing until it is recorded."""
    return {name: NetworkCost(**cost) for name, cost in json.loads(RECORD.read_text()).items()}


def record() -> None:
    """Count every network and write the record."""
    costs = {name: asdict(count(name)) for name in student.names()}
    RECORD.write_text(json.dumps(costs, indent=1) + "\n")


def count(name: str) -> NetworkCost:
    """Build a network without values and count."""
    import torch

    from distill.models import cost

    defaults = _defaults(student.signature(name))
    with torch.device("meta"):
        model = student.find(name)()
        for size in _sizes(defaults):
            with suppress(RuntimeError):  # of another size than the network is for
                macs = cost.macs(model, torch.empty(1, defaults["channels"], size, size))
                return NetworkCost(cost.params(model), macs, size)
    raise ValueError(f"{name} runs neither on 224 x 224 pixels nor on 32 x 32 or 28 x 28")


def _sizes(settings: Mapping[str, int]) -> tuple[int, ...]:
    """Heights and widths to try."""
    if "anchors" in settings:
        return (300,)
    if "input_size" in settings:
        return (settings["input_size"],)
    if "num_classes" not in settings:
        return (256,)
    return (224,) if "small_images" in settings else (32, 28)


def _defaults(signature: Signature) -> dict[str, int]:
    return {setting.name: setting.default for setting in signature.settings}
