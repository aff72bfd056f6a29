"""Li, Zhang & Liu: Ternary Weight Networks. arXiv:1605.04711, section 2: weights of -a, 0 and a."""

from typing import Literal

import torch
from torch import Tensor

from distill.artifact import Artifact
from distill.compress import hook
from distill.compress._weights import adopt, channels_of, slices, unsliced, weights_of
from distill.compress.quantization._quantized import Quantized

Threshold = Literal["optimal", "mean"]


@hook("ternary")
def ternary(
    artifact: Artifact,
    *,
    threshold: Threshold = "optimal",
    granularity: Literal["tensor", "channel"] = "channel",
    layers: list[str] | None = None,
) -> Artifact:
    """Three values per weight or output channel; `finetune` has to train the network again.

    Args:
        artifact: what to compress.
        threshold: below which weights become zero: the ``optimal`` one for the squared error, or the paper's 0.7 of
            the ``mean`` magnitude, near it for most weights.
        granularity: what has a magnitude of its own.
        layers: globs of module paths; without any, every layer.

    Raises:
        RecipeError: a glob matches nothing, or the artifact is encoded.
        TrainingError: a weight holds values that are not finite.
    """
    stored = {}
    for name, weight in weights_of(artifact, "ternary", layers).items():
        axis = None if granularity == "tensor" else channels_of(artifact, name)
        stored[name] = _fit(weight.cpu(), axis, threshold)
    return adopt("ternary", artifact, stored)


def _fit(weight: Tensor, axis: int | None, threshold: Threshold) -> Quantized:
    """Codes of 2 bits, one of which is not used."""
    rows = slices(weight, axis)
    sizes = rows.abs()
    kept = sizes >= _optimum(sizes) if threshold == "optimal" else sizes > 0.7 * sizes.mean(1, keepdim=True)
    kept &= rows != 0
    scales = ((sizes * kept).sum(1) / kept.sum(1).clamp(min=1)).bfloat16()
    codes = unsliced((rows.sign() * kept).to(torch.int8), tuple(weight.shape), axis)
    return Quantized(codes=codes, scales=scales, axis=axis, bits=2)


def _optimum(sizes: Tensor) -> Tensor:
    """The least magnitude to keep in each row: k of them, of mean m, take k m^2 off the squared error (equation 5)."""
    ordered = sizes.sort(dim=1, descending=True).values
    counts = torch.arange(1, ordered.shape[1] + 1, device=sizes.device)
    best = (ordered.double().cumsum(1).square() / counts).argmax(1, keepdim=True)
    return ordered.gather(1, best)
