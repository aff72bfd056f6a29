"""Molchanov et al.: Importance Estimation for Neural Network Pruning. arXiv:1906.10771; Li et al.: Pruning Filters for
Efficient ConvNets. arXiv:1608.08710 and Liu et al.: arXiv:1708.06519 for other saliencies.

Filters go, with the channels they make, and what is left is a smaller ordinary network. Channels that additions,
splits or shuffles bind to each other go together (see `distill.models.channels`).
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distill.artifact import Artifact, Plan
from distill.batch import Batch
from distill.compress import hook
from distill.compress._layers import (
    chosen,
    left,
    refuse_broken_weights,
    refuse_encoded,
    refuse_stored,
    refuse_unfit_heads,
)
from distill.compress._same_outputs import same_outputs
from distill.compress.pruning._channel_scores import Saliency, Scores, bn_scales, magnitudes, taylor
from distill.compress.pruning._channel_seconds import per_second
from distill.errors import RecipeError
from distill.models.channels.groups import Widths
from distill.models.channels.narrow import Channelwise, Kept, mask_channels, mask_of, narrowed, rebuilt, sizes_of
from distill.models.channels.propagation import Channels
from distill.models.channels.sizes import Budget, Sizes, choose, traceable
from distill.registry import surgery
from distill.registry.ranges import Count, Positive, Share

log = logging.getLogger(__name__)


@hook("prune_channels")
def prune_channels(
    artifact: Artifact,
    calibration: Sequence[Batch],
    task_loss: Callable[[Any, Batch], Tensor],
    *,
    ratio: Share = 0.5,
    max_params: Positive | None = None,
    max_macs: Positive | None = None,
    saliency: Saliency = "taylor",
    scope: Literal["layer", "global"] = "layer",
    aim: Literal["size", "speed"] = "size",
    round_to: Count = 8,
    min_channels: Count = 8,
    layers: list[str] | None = None,
) -> Artifact:
    """Fewer channels; those of the images and of the network's output stay.

    Args:
        artifact: what to compress.
        calibration: batches with labels, for ``taylor``; the first is also what the result is checked on.
        task_loss: of an output and its batch, for ``taylor``.
        ratio: the part of the channels to keep, above 0 and below 1.
        max_params: instead of ``ratio``: the network's parameters afterwards, at most: a part of those before up to 1,
            or their number.
        max_macs: the same for its multiply-accumulates.
        saliency: which channels go first: those that matter least to the loss, those of small filters, or those that
            batch normalisation scales down. Channels that no batch normalisation scales stay with ``bn_scale``.
        scope: the same part of every layer, but for rounding, or one ranking of all channels.
        aim: ``speed`` ranks all channels by their saliency for each second that ONNX Runtime takes for them, timed
            here.
        round_to: layers that shrink keep a multiple of so many channels: runtimes are slow at odd numbers.
        min_channels: layers keep at least so many.
        layers: globs of module paths: only filters of these layers are removed, and only where all the layers that a
            channel's removal narrows are among them; without any, of every layer.

    Raises:
        RecipeError: a setting is out of range, a glob matches nothing, a budget cannot be met, the artifact is
            encoded, or the network moves its channels in a way that cannot be followed.
        TrainingError: a weight holds values that are not finite.
    """
    budget = _budget(ratio, max_params, max_macs, round_to, min_channels)
    refuse_encoded(artifact, "prune_channels")
    refuse_broken_weights("prune_channels", artifact.model)
    fit, unfit = traceable(artifact.model)
    refuse_stored("prune_channels", artifact, fit)
    allowed = set(
        chosen(
            [path for path, layer in fit.items() if not isinstance(layer, Channelwise)] + list(unfit),
            layers,
        )
    )
    images = calibration[0].inputs[:4].to(next(artifact.model.parameters()).device)
    sizes = Sizes(artifact.copy_model(), images[:1], fit)
    unfit |= left("prune_channels", sizes.elsewhere)
    scores = _scores(artifact, sizes.whole, saliency, calibration, task_loss)
    widths = Widths(sizes.trace, sizes.whole, _removable(scores, sizes.whole, allowed), round_to, min_channels)
    if aim == "speed":
        channels = choose(widths, sizes, budget, "global", per_second(widths, sizes))
    else:
        channels = choose(widths, sizes, budget, scope)
    plan = sizes.plan(channels)
    _explain(sizes, widths, channels, allowed, unfit)
    if not plan:
        return artifact
    kept = widths.kept(channels)
    model = narrowed(artifact.model, plan, kept)
    _check(artifact, model, kept, images)
    refuse_unfit_heads("prune_channels", artifact.model, model, images)
    return artifact.with_model(model, Plan("prune_channels", plan))


@surgery("prune_channels")
def apply(model: nn.Module, layers: dict[str, dict[str, Any]]) -> nn.Module:
    """Give layers so many channels."""
    return rebuilt(model, layers)


def _budget(ratio: float, max_params: float | None, max_macs: float | None, round_to: int, min_channels: int) -> Budget:
    budgets = {"max_params": max_params, "max_macs": max_macs}
    given = {name: share for name, share in budgets.items() if share is not None} or {"ratio": ratio}
    if len(given) > 1:
        raise RecipeError(f"prune_channels meets one budget: max_params={max_params} or max_macs={max_macs}, not both")
    ((name, amount),) = given.items()
    if not amount > 0 or (name == "ratio" and amount >= 1):
        raise RecipeError(
            f"prune_channels keeps {'a part, 0 < ratio < 1' if name == 'ratio' else 'some'}: not {name}={amount}"
        )
    if min(round_to, min_channels) < 1:
        raise RecipeError(
            f"prune_channels needs round_to and min_channels of 1 or more, not {round_to}, {min_channels}"
        )
    of: dict[str, Literal["channels", "params", "macs"]] = {"max_params": "params", "max_macs": "macs"}
    return Budget(of.get(name, "channels"), amount)


def _scores(
    artifact: Artifact,
    whole: Channels,
    saliency: Saliency,
    calibration: Sequence[Batch],
    task_loss: Callable[[Any, Batch], Tensor],
) -> Scores:
    if not whole.ends:
        return {}
    if saliency == "taylor":
        return taylor(artifact.copy_model(), whole.ends, calibration, task_loss)
    scores = (bn_scales if saliency == "bn_scale" else magnitudes)(artifact.model, whole.ends)
    if not scores:
        raise RecipeError(
            "saliency=bn_scale needs batch normalisation, and this network has none; use magnitude or taylor"
        )
    return scores


def _removable(scores: Scores, whole: Channels, allowed: Collection[str]) -> Scores:
    """Those of channels that may go."""
    makers: dict[int, set[str]] = {
        i: {path for path, role, _ in places if role == "makes"} for i, places in whole.members().items()
    }
    return {i: score for i, score in scores.items() if i not in whole.pinned and set() < makers[i] <= set(allowed)}


def _explain(
    sizes: Sizes, widths: Widths, channels: Channels, allowed: Collection[str], unfit: Mapping[str, str]
) -> None:
    """Log one line for the result, and each layer by name with ``--debug``."""
    whole = sizes.whole
    made = {
        path: (len(ends.outputs), len(channels.ends[path].outputs)) for path, ends in whole.ends.items() if ends.groups
    }
    narrowed = [path for path, (before, after) in made.items() if before != after]
    for path in narrowed:
        log.debug("prune_channels: %s: %d -> %d channels", path, *made[path])
    left = {path: why for path, why in unfit.items() if path in allowed}
    left |= {path: "too narrow, or bound to what stays" for path in made if path in allowed and path not in widths.free}
    reasons = Counter(left.values())
    for why in reasons:
        log.debug("prune_channels: left as they are, %s: %s", why, ", ".join(p for p in left if left[p] == why))
    before, after = sizes.cost(whole), sizes.cost(channels)
    log.info(
        "prune_channels: %d layers, %d -> %d channels, %d -> %d parameters, %d -> %d MACs%s%s",
        len(narrowed),
        *(sum(counts[k] for counts in made.values()) for k in (0, 1)),
        *(before["params"], after["params"], before["macs"], after["macs"]),
        "; left as they are: " + ", ".join(f"{n} ({why})" for why, n in reasons.items()) if reasons else "",
        f"; not followed: {', '.join(whole.unknown)}" if whole.unknown else "",
    )


@torch.no_grad()
def _check(artifact: Artifact, model: nn.Module, kept: Kept, images: Tensor) -> None:
    """The smaller network computes what the whole one does when its removed channels are zero everywhere."""
    whole = artifact.copy_model()
    for path, positions in kept.items():
        layer = whole.get_submodule(path)
        mask_channels(layer, *(mask_of(at, size) for at, size in zip(positions, sizes_of(layer), strict=True)))
    if not same_outputs(whole, model, images, tolerance=1e-9):
        raise RecipeError(
            f"prune_channels cannot tell how {type(model).__name__} moves its channels: the smaller network "
            "would compute something else; name layers that it may narrow in 'layers'"
        )
