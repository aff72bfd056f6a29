"""Li, Wang & Kong: DeepRebirth: Accelerating Deep Neural Network Execution on Mobile Devices. arXiv:1708.04728,
streamline slimming: what follows a convolution and has no weights of its own becomes a part of it; and, if asked for,
branch slimming: what lies beside a larger convolution and is cheap becomes a part of it.

Batch normalisation is folded in, which changes nothing. Pooling and local response normalisation go, and the
convolution takes over their stride: that computes something else, and has to be learned again with ``finetune`` from
the network as it was. Activations stay: runtimes do them within the convolution. Departs from the paper: a convolution
learns again from the weights that it had, and only filters that take a branch's place from random ones; all at once,
unless a recipe has the hook several times, with other ``layers``. New layers of the paper learn ten times as fast as
others: ``lr_factors`` of the optimizer in ``finetune`` do that.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from glob import escape
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distill.artifact import Artifact, Plan
from distill.batch import Batch
from distill.compress import hook
from distill.compress._folding import absorb_norms, norms_after, refuse_changed, restructure
from distill.compress._layers import Layer, factorable
from distill.compress.structure._branches import ACTIVATIONS, fill, joined, rebuilt, slimming
from distill.errors import RecipeError
from distill.models import cost
from distill.models.surgery import exchange
from distill.models.tracing import Op, Trace, trace
from distill.registry import surgery
from distill.registry.ranges import Seed

log = logging.getLogger(__name__)

Merged = nn.MaxPool2d | nn.AvgPool2d | nn.LocalResponseNorm
"""What a convolution can learn to do about as well."""


class Chain(NamedTuple):
    """What a convolution takes over."""

    gone: list[str]
    """Paths of the modules that go."""
    stride: list[int]
    padding: list[int]


@hook("deep_rebirth")
def deep_rebirth(
    artifact: Artifact,
    calibration: Sequence[Batch],
    *,
    exact: bool = False,
    branches: bool = False,
    seed: Seed = 0,
    layers: list[str] | None = None,
) -> Artifact:
    """Convolutions that do the work of the batch normalisation and the pooling behind them.

    Args:
        artifact: what to compress.
        calibration: its first image tells the sizes of maps.
        exact: merge batch normalisation alone, so that the network computes what it did.
        branches: first let larger convolutions make the channels of 1x1 convolutions beside them, with or without a
            pool; and merge the pools behind joined branches too.
        seed: of the new filters.
        layers: globs of module paths; without any, every layer.

    Raises:
        RecipeError: a glob matches nothing, ``exact`` is asked for with ``branches``, the artifact is pruned or
            encoded, or the network uses its layers in a way that cannot be followed.
        TrainingError: a weight holds values that are not finite.
    """
    if exact and branches:
        raise RecipeError("deep_rebirth without branches computes something else: remove 'exact' or 'branches'")
    image = calibration[0].inputs[:1].to(next(artifact.model.parameters()).device)
    fit, unfit = factorable(artifact, "deep_rebirth", layers, image, grouped=True)
    if branches:
        artifact = _slimmed(artifact, image, fit, seed)
        present = dict(artifact.model.named_modules())
        fit, _ = factorable(artifact, "deep_rebirth", [escape(path) for path in fit if path in present], grouped=True)
    model = artifact.copy_model()
    flow = trace(model, image)
    norms = norms_after(model, flow, fit)
    chains, left = ({}, {}) if exact else _chains(model, flow, fit, joins=branches)
    plan = absorb_norms(model, norms)
    refuse_changed("deep_rebirth", artifact.model, model, calibration[0].inputs.to(image.device))
    for path, chain in chains.items():
        plan[path] = plan.get(path, {}) | chain._asdict()
    apply(model, plan)
    _explain(norms, chains, unfit | left)
    return artifact.with_model(model, Plan("deep_rebirth", plan)) if plan else artifact


@surgery("deep_rebirth")
def apply(model: nn.Module, layers: dict[str, dict[str, Any]]) -> nn.Module:
    """Give layers the channels of branches, or the bias of the ``norm`` and the stride of what else is ``gone``."""
    restructure(rebuilt(model, layers), layers)
    for path, spec in layers.items():
        for other in spec.get("gone", []):
            exchange(model, other, nn.Identity())
        for name in ("stride", "padding"):
            if name in spec:
                setattr(model.get_submodule(path), name, tuple(spec[name]))
    return model


def _slimmed(artifact: Artifact, image: Tensor, layers: dict[str, Layer], seed: int) -> Artifact:
    """The artifact without cheap branches; filters in their place begin anew, all others are what they were."""
    model = artifact.copy_model()
    plan = slimming(model, trace(model, image), layers)
    apply(model, plan)
    grown = {path: spec["before"] for path, spec in plan.items() if "before" in spec}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for path, before in grown.items():
            fill(model.get_submodule(path), artifact.model.get_submodule(path), before)
    was, now = cost.params(artifact.model), cost.params(model)
    log.info("deep_rebirth: %d modules lose branches, %d -> %d parameters", len(plan) - len(grown), was, now)
    return artifact.with_model(model, Plan("deep_rebirth", plan)) if plan else artifact


def _chains(
    model: nn.Module, flow: Trace, layers: dict[str, Layer], *, joins: bool
) -> tuple[dict[str, Chain], dict[str, str]]:
    """What convolutions can take over, those that are joined together if ``joins``; and why some cannot."""
    chains: dict[str, Chain] = {}
    left: dict[str, str] = {}
    times = flow.times
    made: list[tuple[int, list[Op | None]]] = [(op.outputs[0], [op]) for op in flow.ops if op.name == "conv2d"]
    made += [(op.outputs[0], [branch.end() for branch in branches]) for op, branches in joined(flow) if joins]
    for value, ends in made:
        gone, after = _followers(model, flow, value)
        pools = [m for path in gone if isinstance(m := model.get_submodule(path), nn.MaxPool2d | nn.AvgPool2d)]
        found: dict[str, Chain | str] = {}
        for end in ends:
            layer = layers.get(end.module) if end and times[end.module] == 1 else None
            if gone and end and isinstance(layer, nn.Conv2d):
                before = flow.shapes[end.inputs[0]]
                found[end.module] = _merged(layer, pools, [] if found else gone, before, flow.shapes[after])
        refusals = [chain for chain in found.values() if isinstance(chain, str)]
        if refusals:
            left |= dict.fromkeys(found, refusals[0])
        elif len(found) == len(ends):
            chains |= {path: chain for path, chain in found.items() if isinstance(chain, Chain)}
    return chains, left


def _followers(model: nn.Module, flow: Trace, value: int) -> tuple[list[str], int]:
    """The modules that a value goes through and nothing else does, activations left out; and what they make of it."""
    readers, times, found, after = flow.readers(), flow.times, [], value
    while len(following := readers.get(value, [])) == 1:
        (op,) = following
        value = op.outputs[0]
        if op.name not in ACTIVATIONS | {"batch_norm"}:
            if not isinstance(model.get_submodule(op.module), Merged) or times[op.module] != 1:
                break
            found.append(op.module)
            after = value
    return found, after


def _merged(
    layer: nn.Conv2d,
    pools: Sequence[nn.MaxPool2d | nn.AvgPool2d],
    gone: list[str],
    before: torch.Size,
    after: torch.Size,
) -> Chain | str:
    """The convolution's new geometry, or why there is none.

    Args:
        layer: it.
        pools: among those that go.
        gone: paths of all that go.
        before: shape of its input.
        after: shape of the last one's output.
    """
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return "padding is not a number of zeros"
    stride, padding = list(layer.stride), []
    for pool in pools:
        steps = pool.stride if isinstance(pool.stride, tuple) else (pool.stride, pool.stride)
        stride = [one * other for one, other in zip(stride, steps, strict=True)]
    for axis, step in enumerate(stride):
        span = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
        if step > span and pools:
            return "the stride would pass over pixels"
        fit = [pad for pad in range(span) if (before[2 + axis] + 2 * pad - span) // step + 1 == after[2 + axis]]
        if not fit:
            return "no padding gives a map of that size"
        own = int(layer.padding[axis])
        padding.append(own if own in fit else fit[0])
    return Chain(gone, stride, padding)


def _explain(norms: dict[str, str], chains: dict[str, Chain], left: dict[str, str]) -> None:
    """Log one line for the result, and each layer by name with ``--debug``."""
    for path, chain in chains.items():
        log.debug("deep_rebirth: %s takes over %s, stride %s", path, ", ".join(chain.gone), chain.stride)
    for path, why in left.items():
        log.debug("deep_rebirth: left as it is, %s: %s", why, path)
    reasons = "".join(f"; left as they are: {count} ({why})" for why, count in Counter(left.values()).items())
    log.info(
        "deep_rebirth: %d batch norms folded, %d pools and normalisations merged into %d layers%s",
        len(norms),
        sum(len(chain.gone) for chain in chains.values()),
        len(chains),
        reasons,
    )
