"""Krishnamoorthi: Quantizing deep convolutional networks for efficient inference. arXiv:1806.08342, section 3: weights
in few bits, with learned rounding by Nagel et al.: Up or Down? arXiv:2004.10568.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from distill.artifact import Artifact
from distill.batch import Batch
from distill.compress import hook
from distill.compress._equalize import correct_biases
from distill.compress._weights import adopt, channels_of, weights_of
from distill.compress.quantization._adaround import adaround, is_layer
from distill.compress.quantization._mixed import choose_bits
from distill.compress.quantization._quantized import Quantized, Scale
from distill.errors import RecipeError
from distill.registry.ranges import Count, Range

Bits = Literal[2, 3, 4, 5, 6, 7, 8]
MeanBits = Annotated[float, Range(at_least=2, at_most=8)]
Granularity = Literal["tensor", "channel", "group"]
Rounding = Literal["nearest", "adaround"]
LEARNED_BELOW = 6
"""So many bits on average, the default is learned rounding; from there on it changes nothing worth its seconds."""


@hook("quantize")
def quantize(
    artifact: Artifact,
    calibration: Sequence[Batch] = (),
    *,
    bits: Bits = 8,
    mean_bits: MeanBits | None = None,
    granularity: Granularity = "channel",
    group_size: Count = 64,
    symmetric: bool = False,
    scale: Scale | None = None,
    rounding: Rounding | None = None,
    bias_correction: bool = False,
    layers: list[str] | None = None,
) -> Artifact:
    """Integer codes for the weights of convolutions, linear layers and factors; biases and normalisation stay.

    Args:
        artifact: what to compress.
        calibration: batches of inputs, for ``mean_bits`` and ``adaround``.
        bits: of each code. Below 8, bytes are saved only by `encode` after it: codes are kept one to a byte.
        mean_bits: instead of ``bits``: an average over all weights that is not exceeded, 2 to 8. Each weight gets its
            own number, by how much the network's output suffers.
        granularity: what has a scale of its own: the whole weight, each output channel, or each ``group_size``
            neighbouring inputs of a channel.
        group_size: for ``group``; the last group of a channel may be shorter.
        symmetric: without zero points. With them, all 2**bits codes are in use, and a slice costs one byte more.
        scale: ``max`` clips no weight; ``mse`` clips where the weight's squared error is smallest, which makes weights
            smaller on the whole and the output worse, unless ``adaround`` mends it. By default ``mse`` with it alone.
        rounding: to the ``nearest`` code, or up or down, whichever keeps the layer's output (``adaround``, up to some
            seconds per layer). By default ``adaround`` below 6 bits.
        bias_correction: take out of each layer's bias what rounding shifted its mean output by (arXiv:1906.04721,
            section 4.2), on the first calibration batch.
        layers: globs of module paths; without any, every layer.

    Raises:
        RecipeError: a setting is out of range, a glob matches nothing, or the artifact is encoded.
        TrainingError: a weight holds values that are not finite.
    """
    _check(bits, mean_bits, group_size)
    weights = weights_of(artifact, "quantize", layers)
    if rounding is None:
        rounding = "adaround" if calibration and (mean_bits or bits) < LEARNED_BELOW else "nearest"
    if not calibration and (mean_bits is not None or rounding == "adaround" or bias_correction):
        raise RecipeError("quantize needs calibration batches for mean_bits, adaround and bias_correction")
    clipping: Scale = scale or ("mse" if rounding == "adaround" else "max")

    def fit(name: str, bits: int) -> Quantized:
        axis = None if granularity == "tensor" else channels_of(artifact, name)
        group = group_size if granularity == "group" else None
        return Quantized.fit(weights[name].cpu(), bits, axis, group, symmetric=symmetric, scale=clipping)

    bits_of: dict[str, int] = dict.fromkeys(weights, bits)
    if mean_bits is not None:
        bits_of |= choose_bits(artifact.copy_model(), calibration, weights, fit, mean_bits)
    stored = {name: fit(name, bits) for name, bits in bits_of.items()}
    learned = adaround(artifact, stored, calibration) if rounding == "adaround" else stored
    done = adopt("quantize", artifact, learned)
    if bias_correction:
        paths = [path for path, module in done.model.named_modules() if is_layer(module) and f"{path}.weight" in stored]
        correct_biases(done.model, artifact.copy_model(), paths, calibration[0].inputs)
    return done


def _check(bits: int, mean_bits: float | None, group_size: int) -> None:
    if bits not in get_args(Bits):
        raise RecipeError(f"quantize has codes of 2 to 8 bits, not {bits}")
    if mean_bits is not None and not 2 <= mean_bits <= 8:
        possible = 8 if mean_bits > 8 else 2
        raise RecipeError(f"quantize has codes of 2 to 8 bits: mean_bits={mean_bits} cannot be, but {possible} can")
    if group_size < 1:
        raise RecipeError(f"quantize needs a group_size of at least 1, not {group_size}")
