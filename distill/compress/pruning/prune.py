"""Han et al.: Learning both Weights and Connections for Efficient Neural Networks. arXiv:1506.02626: the weights that a
network would miss least become zeros, and stay zeros while the others are trained again.

With ``rounds`` the sparsity rises as in Zhu & Gupta: To prune, or not to prune. arXiv:1710.01878, equation 1.
"""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Literal

import torch
from torch import Tensor, nn

from distill.artifact import Artifact, store
from distill.artifact.sparse import Pruned, Sparse, Spliced, keeps_zeros, largest, n_of_m
from distill.artifact.storage import Stored
from distill.batch import Batch
from distill.compress import hook
from distill.compress._layers import refuse_broken
from distill.compress._weights import weights_of
from distill.compress.pruning._saliency import Saliency, TaskLoss, saliencies
from distill.errors import RecipeError
from distill.models.channels.narrow import Transposed
from distill.registry.ranges import BelowOne, Share

log = logging.getLogger(__name__)

Masks = Mapping[str, Tensor]
"""Parameter name -> True where a weight is kept."""


@hook("prune")
def prune(
    artifact: Artifact,
    calibration: Sequence[Batch] = (),
    task_loss: TaskLoss | None = None,
    progress: float = 1.0,
    *,
    sparsity: Share = 0.8,
    pattern: str | None = None,
    saliency: Saliency = "lamp",
    scope: Literal["global", "layer"] = "global",
    floor: BelowOne = 0.01,
    splice: bool = False,
    layers: list[str] | None = None,
) -> Artifact:
    """Zeros in place of weights of convolutions, linear layers and factors; biases and normalisation stay.

    The zeros survive fine-tuning and all later hooks. Each factor of a factorised layer counts as a layer; how factors
    share their product's scale changes the result of ``magnitude`` alone.

    Args:
        artifact: what to compress.
        calibration: batches with labels, for ``taylor`` and ``obd``.
        task_loss: of an output and its batch, for the same.
        progress: the part of all rounds that is done with this one: the sparsity is ``1 - (1 - progress)**3`` of what
            is asked.
        sparsity: the part of all weights chosen that become zeros, above 0 and at most ``1 - floor``; exact to one.
        pattern: instead of ``sparsity``: "2:4" keeps 2 of every 4 neighbouring input channels.
        saliency: what decides: see `saliencies`.
        scope: ``global`` compares the weights of all layers, so that each layer's sparsity is a result; ``layer``
            gives each the same.
        floor: the part of its weights that every layer keeps; one at least.
        splice: fine-tuning chooses the mask anew in every step; what is masked goes on learning meanwhile.
        layers: globs of module paths; without any, every layer.

    Raises:
        RecipeError: a setting is out of range, a glob matches nothing, the artifact is encoded, or the weights are
            stored in a form without zeros.
        TrainingError: a weight or its saliency is not finite.
    """
    if not 0 <= floor < 1 or not 0 < sparsity <= 1 - floor:
        raise RecipeError(f"prune needs 0 <= floor < 1, 0 < sparsity <= 1 - floor; not {floor} and {sparsity}")
    weights = weights_of(artifact, "prune", layers)
    rules, unfit = _rules(artifact.model, weights, pattern)
    scores = saliencies(saliency, artifact.copy_model(), list(rules), calibration, task_loss)
    gone = {name: _zeros(artifact.stored.get(name), weights[name]) for name in rules}
    for name, score in scores.items():
        refuse_broken("prune", f"saliency of {name}", score)
        scores[name] = score.double().masked_fill(gone[name], -1)  # what has gone is missed least
    if pattern:
        kept = {name: n_of_m(score, *rules[name]) for name, score in scores.items()}
        sparsity = _summary(kept)[2]
    else:
        kept = {name: largest(score, max(1, ceil(floor * score.numel()))) for name, score in scores.items()}
    masks = _masks(scores, kept, sparsity * (1 - (1 - progress) ** 3), scope)
    masks = {name: mask & ~gone[name] for name, mask in masks.items()}
    _explain(masks, unfit)
    return store(artifact, {name: _form(artifact, name, mask, rules[name], splice) for name, mask in masks.items()})


def _rules(
    model: nn.Module, weights: Mapping[str, Tensor], pattern: str | None
) -> tuple[dict[str, list[int]], dict[str, str]]:
    """What a pattern means for each weight, [n, m, axis], or nothing; and why weights cannot follow it."""
    if pattern is None:
        return {name: [] for name in weights}, {}
    match = re.fullmatch(r"(\d+):(\d+)", pattern)
    n, m = map(int, match.groups()) if match else (0, 0)
    if not 0 < n < m:
        raise RecipeError(f'pattern is \'{pattern}\', but is "N:M" in quotes with 0 < N < M, for example "2:4"')
    rules, unfit = {}, {}
    for name, weight in weights.items():
        axis = _inputs(model.get_submodule(name.rpartition(".")[0]))
        if axis is None:
            unfit[name] = "a factor without input channels"
        elif weight.shape[axis] % m:
            unfit[name] = f"input channels not a multiple of {m}"
        else:
            rules[name] = [n, m, axis]
    return rules, unfit


def _inputs(module: nn.Module) -> int | None:
    """The axis of a layer's weight that belongs to its input channels."""
    if isinstance(module, Transposed):
        return 0
    return 1 if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) else None


def _zeros(stored: Stored | None, weight: Tensor) -> Tensor:
    """What was pruned before."""
    return stored.decode() == 0 if stored and keeps_zeros(stored) else torch.zeros_like(weight, dtype=torch.bool)


def _count(masks: Masks) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


def _masks(scores: Mapping[str, Tensor], kept: Masks, sparsity: float, scope: str) -> dict[str, Tensor]:
    """The most salient weights; those of ``kept`` come first."""
    masks: dict[str, Tensor] = {}
    for names in [list(scores)] if scope == "global" and scores else [[name] for name in scores]:
        flat = torch.cat([scores[name].masked_fill(kept[name], torch.inf).flatten() for name in names])
        count, least = len(flat) - round(sparsity * len(flat)), _count({name: kept[name] for name in names})
        if count < least and scope == "global":
            raise RecipeError(
                f"sparsity {sparsity:.4f} would take from layers what `floor` leaves them: "
                f"{1 - least / len(flat):.4f} is the most"
            )
        parts = largest(flat, max(count, least)).split([scores[name].numel() for name in names])
        masks |= {name: part.view_as(scores[name]) for name, part in zip(names, parts, strict=True)}
    return masks


def _form(artifact: Artifact, name: str, mask: Tensor, rule: list[int], splice: bool) -> Stored:
    """A parameter's stored form with that mask; codes stay codes."""
    weight, stored = artifact.model.get_parameter(name).detach(), artifact.stored.get(name)
    if stored is None or isinstance(stored, Sparse | Spliced):
        sparse = Sparse.of(weight, mask)
        return Spliced(inner=sparse, pattern=rule) if splice else sparse
    if splice:
        raise RecipeError(f"splice needs values, but '{name}' is stored as codes: put 'prune' first, or splice: false")
    codes = (stored.inner if isinstance(stored, Pruned) else stored).requantize(weight.masked_fill(~mask, 0))
    if codes.decode()[~mask].any():
        kind = type(codes).__name__
        raise RecipeError(f"'{name}' is stored as '{kind}', which cannot make them zero: put 'prune' before its hook")
    return Pruned(inner=codes)


def _explain(masks: Masks, unfit: Mapping[str, str]) -> None:
    """Log one line for the result; each layer by name with ``--debug``."""
    for name, mask in masks.items():
        log.debug("prune: %s: kept %d of %d, sparsity %.3f", name, *_summary({name: mask}))
    for name, why in unfit.items():
        log.debug("prune: %s: left as it is, %s", name, why)
    why_left = ", ".join(f"{many} ({why})" for why, many in Counter(unfit.values()).items())
    left = f"; left as they are: {why_left}" if unfit else ""
    log.info("prune: %d layers, kept %d of %d weights, sparsity %.3f%s", len(masks), *_summary(masks), left)


def _summary(masks: Masks) -> tuple[int, int, float]:
    """Weights kept, of how many, and the sparsity."""
    kept, of = _count(masks), sum(mask.numel() for mask in masks.values())
    return kept, of, 1 - kept / max(1, of)
