"""Jaderberg, Vedaldi & Zisserman: Speeding up Convolutional Neural Networks with Low Rank Expansions. arXiv:1405.3866,
scheme 2, for separable kernels; Denton et al., arXiv:1404.0736, for whole kernels.

A weight becomes a matrix that is cut to low rank. A k x k convolution becomes a k x 1 one and a 1 x k one
(``spatial``), or a k x k one with few outputs and a 1 x 1 one (``channel``); a linear layer becomes two. Departs from
the papers: singular value decomposition of the weight, with errors weighted by how much they are felt, and ranks that
follow from one number; the rest is left to fine-tuning.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from distill.artifact import Artifact
from distill.batch import Batch
from distill.compress import hook
from distill.compress.low_rank._allocation import Aim, Goal
from distill.compress.low_rank._error_weighting import Weighting
from distill.compress.low_rank._factorise import factorise, rebuild
from distill.compress.low_rank._matrices import Cut, Scheme, pair
from distill.registry import surgery


@hook("svd")
def svd(
    artifact: Artifact,
    evaluate: Callable[[nn.Module], float],
    calibration: list[Batch],
    *,
    max_error: float | None = None,
    max_params: float | None = None,
    max_macs: float | None = None,
    max_drop: float | None = None,
    aim: Aim = "size",
    weighting: Weighting = "outputs",
    scheme: Scheme = "spatial",
    layers: list[str] | None = None,
) -> Artifact:
    """Low-rank convolutions and linear layers; a layer that would not get smaller, or faster, stays as it is.

    Args:
        artifact: what to compress.
        evaluate: the task's monitor on the validation split, higher is better; called only for ``max_drop``.
        calibration: images for ``weighting``.
        max_error: largest relative error of each layer, above 0 and below 1.
        max_params: the network's parameters afterwards: a part of those before up to 1, or their number.
        max_macs: the same for its multiply-accumulates.
        max_drop: largest loss of ``evaluate``, before any fine-tuning; 0.01 if no other of the four is given.
        aim: ``speed`` changes only layers that ONNX Runtime then runs faster on one thread and on two, as timed here.
        weighting: which errors count: of the weight (``none``), of the layer's output on images (``inputs``), or of
            the network's output (``outputs``), which alone tells what each layer's errors cost beside another's.
        scheme: how k x k kernels are cut.
        layers: globs of module paths; without any, every layer.

    Raises:
        RecipeError: a number out of range, two of them, a budget that cannot be met, a glob that matches nothing, or
            the artifact is encoded.
        TrainingError: a weight holds values that are not finite.
    """
    goal = Goal(max_error, max_params, max_macs, max_drop, aim)
    return factorise(
        "svd",
        artifact,
        evaluate,
        calibration,
        goal,
        weighting,
        layers,
        lambda traced, error_weights: Cut(traced, error_weights, scheme),
        pair,
    )


@surgery("svd")
def apply(model: nn.Module, layers: dict[str, dict[str, Any]]) -> nn.Module:
    """Put two layers in place of each one, of the given rank."""
    return rebuild(model, layers, pair)
