"""Cai et al.: ZeroQ. arXiv:2001.00281, section 3.2, and Wang et al.: HAQ. arXiv:1811.08886: a number of bits for each
layer, from one budget and by measured sensitivity.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from distill.artifact.storage import Stored
from distill.batch import Batch

log = logging.getLogger("distill.compress.quantize")

CHOICES = range(2, 9)
SAMPLES = 128
"""Seen by the network once per weight and number of bits."""


def choose_bits(
    model: nn.Module,
    batches: Sequence[Batch],
    weights: Mapping[str, Tensor],
    fit: Callable[[str, int], Stored],
    mean_bits: float,
) -> dict[str, int]:
    """Bits of each weight, on average no more than ``mean_bits``, so that the network's output suffers least.

    Args:
        model: one's own copy.
        batches: what it sees.
        weights: by name.
        fit: the form of a weight in so many bits.
        mean_bits: the budget, at least 2.
    """
    harm = sensitivities(model, torch.cat([batch.inputs for batch in batches])[:SAMPLES], weights, fit)
    sizes = {name: weight.numel() for name, weight in weights.items()}
    bits = allocate(harm, sizes, mean_bits)
    for name, chosen in bits.items():
        log.debug("quantize: %s: %d bits, output error %.2e", name, chosen, harm[name][chosen])
    mean = sum(sizes[name] * chosen for name, chosen in bits.items()) / sum(sizes.values())
    counts = ", ".join(f"{list(bits.values()).count(b)} in {b}" for b in sorted(set(bits.values())))
    log.info("quantize: %.3f bits per weight on average: weights %s bits", mean, counts)
    return bits


@torch.no_grad()
def sensitivities(
    model: nn.Module, inputs: Tensor, weights: Mapping[str, Tensor], fit: Callable[[str, int], Stored]
) -> dict[str, dict[int, float]]:
    """By weight and bits, the relative squared error of the network's output when only this weight has so many."""
    parameters = dict(model.named_parameters())
    outputs = model(inputs)
    harm: dict[str, dict[int, float]] = {}
    for name, weight in weights.items():
        harm[name] = {}
        for bits in CHOICES:
            parameters[name].copy_(fit(name, bits).decode())
            harm[name][bits] = float((model(inputs) - outputs).square().sum() / outputs.square().sum())
        parameters[name].copy_(weight)
    return harm


def allocate(harm: Mapping[str, Mapping[int, float]], sizes: Mapping[str, int], mean_bits: float) -> dict[str, int]:
    """From the most bits downwards, always where a bit saved costs least; what is left of the budget goes back.

    Args:
        harm: what each number of bits costs, by name.
        sizes: the number of values, by name.
        mean_bits: the budget per value, at least the fewest bits there are.
    """
    budget = mean_bits * sum(sizes.values())
    bits = {name: max(costs) for name, costs in harm.items()}

    def spent() -> int:
        return sum(sizes[name] * chosen for name, chosen in bits.items())

    def slope(move: tuple[str, int]) -> float:
        """Harm per bit that a move saves."""
        name, new = move
        return (harm[name][new] - harm[name][bits[name]]) / (sizes[name] * (bits[name] - new))

    while spent() > budget:
        name, new = min(((n, b) for n, costs in harm.items() for b in costs if b < bits[n]), key=slope)
        bits[name] = new
    while True:
        rest = budget - spent()
        moves = [
            (n, b)
            for n, costs in harm.items()
            for b in costs
            if 0 < sizes[n] * (b - bits[n]) <= rest and costs[b] < costs[bits[n]]
        ]
        if not moves:
            return bits
        name, new = max(moves, key=slope)
        bits[name] = new
