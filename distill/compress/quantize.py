"""Krishnamoorthi: Quantizing deep convolutional networks for efficient inference. arXiv:1806.08342, section 3: weights
in few bits, one scale per output channel, rounded to nearest without any data.
"""

from typing import Literal, get_args

from torch import nn

from distill.artifact import Artifact, store
from distill.compress import hook
from distill.compress._layers import chosen, refuse_broken, refuse_encoded
from distill.errors import RecipeError
from distill.stored import Quantized

Bits = Literal[2, 3, 4, 5, 6, 7, 8]


@hook("quantize")
def quantize(artifact: Artifact, *, bits: Bits = 8, layers: list[str] | None = None) -> Artifact:
    """Integer codes for the weights of convolutions, linear layers and factors; biases and normalisation stay.

    Args:
        artifact: what to compress.
        bits: of each code. Below 8, bytes are saved only by `encode` after it: codes are kept one to a byte.
        layers: globs of module paths; without any, every layer.

    Raises:
        RecipeError: ``bits`` is out of range, a glob matches nothing, or the artifact is encoded.
        TrainingError: a weight holds values that are not finite.
    """
    if bits not in get_args(Bits):
        raise RecipeError(f"quantize has codes of 2 to 8 bits, not {bits}")
    refuse_encoded(artifact, "quantize")
    weights = {name: p.detach() for name, p in artifact.model.named_parameters() if p.dim() > 1}
    paths = set(chosen(dict.fromkeys(name.rpartition(".")[0] for name in weights), layers))
    stored = {}
    for name, weight in weights.items():
        path = name.rpartition(".")[0]
        if path in paths:
            refuse_broken("quantize", name, weight)
            stored[name] = Quantized.fit(weight, bits, axis=_channels(artifact.model.get_submodule(path)))
    return store(artifact, stored)


def _channels(module: nn.Module) -> int:
    """The axis of a weight that has a scale for each of its slices."""
    return 1 if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d) else 0
