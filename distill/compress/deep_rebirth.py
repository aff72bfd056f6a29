"""Li, Wang & Kong: DeepRebirth: Accelerating Deep Neural Network Execution on Mobile Devices. arXiv:1708.04728,
streamline slimming: what follows a convolution and has no weights of its own becomes a part of it.

Batch normalisation is folded in, which changes nothing. Pooling and local response normalisation go, and the
convolution takes over their stride: that computes something else, and has to be learned again with ``finetune`` from
the network as it was. Activations stay: runtimes do them within the convolution. Departs from the paper: the
convolution learns again from the weights that it had, not from random ones, at the learning rate of all others; layers
are learned at once, unless a recipe has the hook several times, with other ``layers``; Inception's branches stay.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distill.artifact import Artifact, Plan, exchange, surgery
from distill.batch import Batch
from distill.compress import hook
from distill.compress._flow import Flow, follow
from distill.compress._folding import BatchNorm, absorb, norms_after, restructure
from distill.compress._layers import Layer, factorable, layer_at

log = logging.getLogger(__name__)

ACTIVATIONS = frozenset(["relu", "relu6", "hardtanh", "hardswish", "silu", "leaky_relu", "gelu", "elu", "dropout"])
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
    artifact: Artifact, calibration: Sequence[Batch], *, exact: bool = False, layers: list[str] | None = None
) -> Artifact:
    """Convolutions that do the work of the batch normalisation and the pooling behind them.

    Args:
        artifact: what to compress.
        calibration: its first image tells the sizes of maps.
        exact: merge batch normalisation alone, so that the network computes what it did.
        layers: globs of module paths; without any, every layer.

    Raises:
        RecipeError: a glob matches nothing, or the artifact is pruned or encoded.
        TrainingError: a weight holds values that are not finite.
    """
    fit, unfit = factorable(artifact, "deep_rebirth", layers, grouped=True)
    model = artifact.copy_model()
    image = calibration[0].inputs[:1].to(next(model.parameters()).device)
    flow = follow(model, image)
    norms = norms_after(model, flow, fit)
    chains, left = ({}, {}) if exact else _chains(model, flow, fit, image)
    plan: dict[str, dict[str, Any]] = {path: {"norm": norm} for path, norm in norms.items()}
    for path, chain in chains.items():
        plan[path] = plan.get(path, {}) | chain._asdict()
    apply(model, plan)
    with torch.no_grad():
        for path, norm in norms.items():
            batch_norm = artifact.model.get_submodule(norm)
            assert isinstance(batch_norm, BatchNorm)
            absorb(layer_at(model, path), batch_norm)
    _explain(norms, chains, unfit | left)
    return artifact.with_model(model, Plan("deep_rebirth", plan)) if plan else artifact


@surgery("deep_rebirth")
def apply(model: nn.Module, layers: dict[str, dict[str, Any]]) -> nn.Module:
    """Give layers the bias of the ``norm`` that goes, and the stride of what else is ``gone``."""
    restructure(model, layers)
    for path, spec in layers.items():
        for other in spec.get("gone", []):
            exchange(model, other, nn.Identity())
        for name in ("stride", "padding"):
            if name in spec:
                setattr(model.get_submodule(path), name, tuple(spec[name]))
    return model


def _chains(
    model: nn.Module, flow: Flow, layers: dict[str, Layer], image: Tensor
) -> tuple[dict[str, Chain], dict[str, str]]:
    """What convolutions can take over; and why some cannot."""
    chains, left = {}, {}
    sizes = _sizes(model, image)
    times = flow.times()
    for op in flow.ops:
        layer = layers.get(op.module)
        if op.name != "conv2d" or not isinstance(layer, nn.Conv2d) or times[op.module] != 1:
            continue
        if gone := _followers(model, flow, op.outputs[0]):
            pools = [m for path in gone if isinstance(m := model.get_submodule(path), nn.MaxPool2d | nn.AvgPool2d)]
            chain = _merged(layer, pools, gone, sizes[op.module][0], sizes[gone[-1]][1])
            if isinstance(chain, Chain):
                chains[op.module] = chain
            else:
                left[op.module] = chain
    return chains, left


def _followers(model: nn.Module, flow: Flow, value: int) -> list[str]:
    """The modules that a convolution's output goes through and nothing else does, activations left out."""
    readers, times, found = flow.readers(), flow.times(), []
    while len(following := readers.get(value, [])) == 1:
        (op,) = following
        if op.name not in ACTIVATIONS | {"batch_norm"}:
            if not isinstance(model.get_submodule(op.module), Merged) or times[op.module] != 1:
                break
            found.append(op.module)
        value = op.outputs[0]
    return found


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
        after: shape of what the last of them answers.
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


@torch.no_grad()
def _sizes(model: nn.Module, image: Tensor) -> dict[str, tuple[torch.Size, torch.Size]]:
    """Shapes of the inputs and outputs of all convolutions and of what may go."""
    found: dict[str, tuple[torch.Size, torch.Size]] = {}

    def look(path: str, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        found[path] = (inputs[0].shape, output.shape)

    wanted = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Conv2d | Merged)]
    handles = [module.register_forward_hook(partial(look, path)) for path, module in wanted]
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    return found


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
