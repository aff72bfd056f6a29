"""Jaderberg, Vedaldi & Zisserman: Speeding up Convolutional Neural Networks with Low Rank Expansions. arXiv:1405.3866,
scheme 2, for separable kernels; Denton et al., arXiv:1404.0736, for whole kernels.

A weight becomes a matrix that is cut to low rank. A k x k convolution becomes a k x 1 one and a 1 x k one
(``spatial``), or a k x k one with few outputs and a 1 x 1 one (``channel``); a linear layer becomes two. Departs from
the papers: singular value decomposition of the weight, with weighted errors, and ranks that follow from one
number; the rest is left to fine-tuning.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from distill.compress import hook
from distill.compress.low_rank._error_weighting import ErrorWeights, TracedLayer
from distill.compress.low_rank._factorise import factorisation, rebuild
from distill.compress.low_rank._matrices import Cut, Scheme, pair
from distill.registry import surgery


@hook("svd")
@factorisation(pair)
def svd(traced: TracedLayer, error_weights: ErrorWeights, *, scheme: Scheme = "spatial") -> Cut:
    """Low-rank convolutions and linear layers; a layer that would not get smaller, or faster, stays as it is.

    Settings: see `distill.compress.low_rank._factorise.factorisation`, and

    Args:
        traced: the layer.
        error_weights: of its weight.
        scheme: how k x k kernels are cut.
    """
    return Cut(traced, error_weights, scheme)


@surgery("svd")
def apply(model: nn.Module, layers: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Put two layers in place of each one, of the given rank."""
    return rebuild(model, layers, pair)
