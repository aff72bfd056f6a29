"""Krishnamoorthi: Quantizing deep convolutional networks for efficient inference. arXiv:1806.08342, section 3.1: 8 bits
for weights and activations after training, for runtimes that compute on integers.

Batch norms are folded into the layers before them, images tell how far activations reach, and from then on the network
computes with values that uint8 activations and int8 weights have. Its ``finetune`` is quantization-aware training
(section 3.2): weights learn, the ranges of activations stay. With no batch norm left it wants a learning rate some
hundred times smaller than training did.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from distill.artifact import Artifact, Plan, store
from distill.batch import Batch
from distill.compress import hook
from distill.compress._equalize import correct_biases
from distill.compress._folding import Plain, Spec, fold, restructure
from distill.compress._layers import refuse_encoded
from distill.compress._places import Places
from distill.compress.quantization._quantized import Quantized
from distill.compress.quantization._ranges import Method, histograms
from distill.errors import RecipeError
from distill.models.fake_quantize import QuantizationParams, QuantizeInput, QuantizeOutput, mark
from distill.models.tracing import trace
from distill.registry import form, surgery
from distill.registry.ranges import NonNegative, Percentile

log = logging.getLogger(__name__)

Bits = Literal[7, 8]


@hook("int8")
def int8(
    artifact: Artifact,
    calibration: list[Batch],
    evaluate: Callable[[nn.Module], float],
    *,
    bits: Bits = 7,
    ranges: Method = "mse",
    percentile: Percentile = 99.99,
    equalize: bool = False,
    bias_correction: bool = False,
    max_drop: NonNegative | None = None,
    layers: list[str] | None = None,
) -> Artifact:
    """Convolutions and linear layers that run on integers; whatever else there is stays in float32.

    Args:
        artifact: what to compress.
        calibration: images that show how far activations reach.
        evaluate: the task's monitor on the validation split, higher is better; called only for ``max_drop``.
        bits: of weights. With 7, two products add up to no more than 16 bits hold, and every CPU computes the same;
            8 is for CPUs with VNNI instructions and for ARM, elsewhere such sums are cut off.
        ranges: how the range of an activation's codes is chosen, see `_ranges`.
        percentile: for ``ranges: percentile`` alone, the part of the values that is not cut off, in percent.
        equalize: first even out the channels of neighbouring layers, for depthwise convolutions. Not where a ReLU6
            between them cuts values off.
        bias_correction: take out of each layer's bias what rounding shifted its mean output by.
        max_drop: largest loss of ``evaluate``, before any fine-tuning: so many layers stay in float32, the most
            sensitive ones first, that it is met.
        layers: globs of module paths; without any, every layer.

    Raises:
        RecipeError: a setting is out of range, a glob matches nothing, weights are codes already, images do not fit
            the network, or ``max_drop`` would leave more than half of the layers in float32.
        TrainingError: a weight or an activation is not finite.
    """
    _check(bits, ranges, percentile, max_drop)
    refuse_encoded(artifact, "int8")
    images = _images(artifact, calibration)
    plain = fold(artifact, layers, images, even_out=equalize)
    rounding = Rounding(artifact, plain, images, bits, ranges, percentile, bias_correction)
    chosen = plain.layers
    result = rounding.of(chosen)
    if max_drop is not None:
        result, chosen = _gated(rounding, result, evaluate(artifact.model) - max_drop, evaluate)
    _explain(plain, chosen, result)
    return result


@surgery("int8")
def apply(model: nn.Module, layers: Spec) -> nn.Module:
    """Fold and exchange what a plan says, and round where it says."""
    model = restructure(model, layers)
    for path, spec in layers.items():
        module = model.get_submodule(path)
        if "bits" in spec:
            mark(module, spec["bits"])
        if "input" in spec:
            module.register_forward_pre_hook(QuantizeInput(QuantizationParams(*spec["input"])), with_kwargs=True)
        if "output" in spec:
            module.register_forward_hook(QuantizeOutput(QuantizationParams(*spec["output"])))
    return model


@form("peaked")
@dataclass(frozen=True, eq=False, kw_only=True)
class MaxScaled(Quantized):
    """Codes of which the largest of each slice is the largest there is: a file's scales follow from weights alone."""

    def requantize(self, tensor: Tensor) -> "Quantized":
        return self.fit(tensor, self.bits, self.axis)


@dataclass(frozen=True)
class Rounding:
    """Puts layers of one network on integers."""

    artifact: Artifact
    plain: Plain
    images: list[Tensor]
    bits: Bits
    ranges: Method
    percentile: float
    bias_correction: bool

    def of(self, paths: Collection[str], images: list[Tensor] | None = None) -> Artifact:
        """The artifact with these layers on integers, calibrated on all images if none are given."""
        images = images or self.images
        places = Places(trace(self.plain.model, images[0][:1]), paths).find()
        seen = histograms(self.plain.model, places, images, counted=self.ranges != "minmax")
        plan = self.plain.plan | {path: {**self.plain.plan.get(path, {}), "bits": self.bits} for path in paths}
        for place, histogram in zip(places, seen, strict=True):
            grid = histogram.grid(self.ranges, self.percentile)
            for path, end in (spot for spots in place.spots for spot in spots):
                plan[path] = {**plan.get(path, {}), end: list(grid)}
        done = self._carried_out(plan, paths)
        if self.bias_correction:
            correct_biases(done.model, self.plain.model, paths, images[0])
        return done

    def _carried_out(self, plan: Spec, paths: Collection[str]) -> Artifact:
        model = apply(self.artifact.copy_model(), plan)
        model.load_state_dict(self.plain.model.state_dict())
        values = {name: parameter.detach() for name, parameter in model.named_parameters()}
        done = self.artifact.with_model(model, Plan("int8", plan))
        return store(done, {name: MaxScaled.fit(values[name], self.bits) for name in map("{}.weight".format, paths)})

    @torch.no_grad()
    def by_sensitivity(self) -> list[str]:
        """The layers, those first that change the network's output most if they alone are on integers."""
        exact = self.plain.model(self.images[0])
        alone = {path: self.of([path], self.images[:1]).model(self.images[0]) for path in self.plain.layers}
        return sorted(alone, key=lambda path: -float((alone[path] - exact).square().sum()))


def _gated(
    rounding: Rounding, result: Artifact, floor: float, evaluate: Callable[[nn.Module], float]
) -> tuple[Artifact, list[str]]:
    """The network with the fewest layers in float32 that reaches ``floor``, and its layers on integers; by bisection.

    Args:
        rounding: of the network.
        result: all of its layers on integers.
        floor: the least value of ``evaluate``.
        evaluate: see `int8`.
    """
    value, order = evaluate(result.model), rounding.plain.layers
    if value >= floor:
        return result, order
    order = rounding.by_sensitivity()
    few, enough, best = 0, len(order) // 2, None
    while best is None or enough - few > 1:
        count = enough if best is None else (few + enough) // 2
        candidate = rounding.of(order[count:])
        value = evaluate(candidate.model)
        log.info("int8: %d layers in float32: %.4f, at least %.4f wanted", count, value, floor)
        if value >= floor:
            best, enough = candidate, count
        elif best is None:
            raise RecipeError(
                f"int8: {value:.4f} with half of the layers in float32, but max_drop wants {floor:.4f}: raise it, try "
                "other ranges, equalize: true or bias_correction: true, or leave max_drop out and finetune"
            )
        else:
            few = count
    return best, order[enough:]


def _explain(plain: Plain, chosen: Collection[str], result: Artifact) -> None:
    """One line; each layer by name with ``--debug``."""
    reasons = plain.unchanged | {path: "too sensitive" for path in plain.layers if path not in chosen}
    for path, why in reasons.items():
        log.debug("int8: %s stays in float32: %s", path, why)
    left = ", ".join(f"{count} ({why})" for why, count in Counter(reasons.values()).items())
    norms = sum("norm" in spec for spec in plain.plan.values())
    kept = f", layers: {left}" if left else ""
    sizes = {name: parameter.numel() for name, parameter in result.model.named_parameters()}
    share = 100 * sum(size for name, size in sizes.items() if name not in result.stored) / max(1, sum(sizes.values()))
    log.info(
        "int8: %d layers on integers, %d batch norms folded; %.1f %% of the parameters stay in float32%s",
        *(len(chosen), norms, share, kept),
    )


def _check(bits: int, ranges: str, percentile: float, max_drop: float | None) -> None:
    if bits not in get_args(Bits) or ranges not in get_args(Method):
        raise RecipeError(f"int8 has bits 7 and 8 and ranges {', '.join(get_args(Method))}, not {bits} and {ranges}")
    if not 0 < percentile <= 100 or (max_drop is not None and not max_drop >= 0):
        raise RecipeError(f"int8 needs 0 < percentile <= 100 and max_drop >= 0, not {percentile} and {max_drop}")


@torch.no_grad()
def _images(artifact: Artifact, calibration: list[Batch]) -> list[Tensor]:
    images = [batch.inputs for batch in calibration if len(batch.inputs)]
    if not images:
        raise RecipeError("int8 learns the ranges of activations from calibration images, but there are none")
    if not all(batch.isfinite().all() for batch in images):
        raise RecipeError("int8: calibration images hold values that are not finite")
    for batch in images:
        try:
            artifact.model(batch[:1])
        except RuntimeError as error:
            size = "x".join(map(str, batch.shape[1:]))
            raise RecipeError(f"int8: the network cannot read calibration images of {size}: {error}") from None
    return images
