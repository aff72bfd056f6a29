"""Wang et al.: Fully Learnable Group Convolution for Acceleration of Deep Neural Networks. arXiv:1904.00346: the 1x1
convolutions of any network learn which of their channels belong together, and then compute with these alone.

In all rounds but the last, layers that learn groups take the place of convolutions, and ``finetune`` trains them; the
last round makes of each one dense convolution per group.
"""

import logging
from collections.abc import Sequence
from glob import escape
from typing import Any

import torch
from torch import nn

from distill.artifact import Artifact, Plan
from distill.artifact.sparse import keeps_zeros
from distill.batch import Batch
from distill.compress import hook
from distill.compress._layers import chosen, factorable, refuse_broken
from distill.errors import RecipeError
from distill.models import cost
from distill.models.surgery import exchange
from distill.registry import surgery
from distill.registry.ranges import Seed, Several
from students.flgc import GroupedConv, LearnedGroupConv

log = logging.getLogger(__name__)

Spec = dict[str, dict[str, Any]]


@hook("flgc")
def flgc(
    artifact: Artifact,
    progress: float = 1.0,
    calibration: Sequence[Batch] = (),
    *,
    groups: Several = 8,
    seed: Seed = 0,
    layers: list[str] | None = None,
) -> Artifact:
    """Groups for 1x1 convolutions; ask for ``rounds: 2``, so that they are learned before they are made.

    A network whose layers learn groups already, as `flgc_mobilenet_v2`, needs one round, which makes theirs and leaves
    all other layers as they are. In one round, a network without such layers gets groups of random channels.

    Args:
        artifact: what to compress.
        progress: the part of all rounds that is done with this one.
        calibration: its first image shows which layers the network only calls.
        groups: of each convolution, 2 at least. They become as large as they are learned to be; some may be empty.
        seed: of the groups that channels are in before they learn.
        layers: globs of module paths; without any, every 1x1 convolution that has no groups.

    Raises:
        RecipeError: fewer groups than 2, a glob matches nothing, a layer is pruned, or the artifact is encoded.
        TrainingError: a weight holds values that are not finite.
    """
    if groups < 2:
        raise RecipeError(f"groups is {groups}, but flgc makes at least 2")
    plain, learning = _fit(artifact, layers, calibration)
    begun: Spec = {path: {"groups": groups} for path in plain} if progress < 1 or not learning else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = apply(artifact.copy_model(), begun)
    if progress < 1:
        log.info("flgc: %d layers learn %d groups", len(learning) + len(begun), groups)
        return artifact.with_model(model, Plan("flgc", begun)) if begun else artifact
    found = {path: model.get_submodule(path) for path in learning or plain}
    plan = {path: layer.assignments() for path, layer in found.items() if isinstance(layer, LearnedGroupConv)}
    if not plan:
        return artifact
    done = artifact.with_model(apply(artifact.copy_model(), plan), Plan("flgc", plan))
    before, after = cost.params(artifact.model), cost.params(done.model)
    log.info("flgc: %d layers in groups, the network has %d -> %d parameters", len(plan), before, after)
    return done


@surgery("flgc")
def apply(model: nn.Module, layers: Spec) -> nn.Module:
    """Put in place of convolutions what learns their groups, or what has them."""
    for path, spec in layers.items():
        layer: Any = model.get_submodule(path)
        exchange(model, path, LearnedGroupConv(layer, **spec) if "groups" in spec else GroupedConv(layer, **spec))
    return model


def _fit(artifact: Artifact, patterns: list[str] | None, calibration: Sequence[Batch]) -> tuple[list[str], list[str]]:
    """Paths of 1x1 convolutions that could learn groups, and of layers that do."""
    kinds = (nn.Conv2d, nn.Linear, LearnedGroupConv)
    modules = {path: module for path, module in artifact.model.named_modules() if isinstance(module, kinds)}
    paths = chosen(modules, patterns)
    learning = [path for path in paths if isinstance(modules[path], LearnedGroupConv)]
    for path in learning:
        refuse_broken("flgc", f"{path}.weight", artifact.model.get_parameter(f"{path}.weight"))
        if keeps_zeros(artifact.stored.get(f"{path}.weight")):
            raise RecipeError(f"'flgc' would lose the zeros of '{path}': put it before 'prune'")
    image = calibration[0].inputs[:1] if calibration else None
    others, _ = factorable(artifact, "flgc", [escape(path) for path in paths if path not in learning], image)
    plain = [
        path
        for path, layer in others.items()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.padding_mode == "zeros"
    ]
    return plain, learning
