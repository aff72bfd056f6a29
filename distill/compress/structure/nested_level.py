"""Kim, Ahn & Oh: NestedNet: Learning Nested Sparse Structures in Deep Neural Networks. arXiv:1712.03781: one of the
networks that the loss `nestednet` has trained inside another becomes a network of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from distill.artifact import Artifact, Plan, store
from distill.artifact.sparse import Sparse
from distill.batch import Batch
from distill.compress import hook
from distill.compress._layers import left, refuse_broken_weights, refuse_encoded, refuse_stored, refuse_unfit_heads
from distill.errors import RecipeError
from distill.models.channels.narrow import Channelwise, narrowed, rebuilt
from distill.models.channels.nested import Nest, largest_masks, leading, removable_blocks, spare_blocks
from distill.models.channels.sizes import Sizes, traceable
from distill.models.surgery import exchange
from distill.registry import surgery
from distill.registry.ranges import Share


@hook("nested_level")
def nested_level(
    artifact: Artifact, calibration: Sequence[Batch], *, level: Share = 0.5, nest: Nest = "channels"
) -> Artifact:
    """An inner network; its batch statistics are found anew, for those of the whole network are not its own.

    Args:
        artifact: what to compress.
        calibration: images for the statistics.
        level: the part of each layer or stage to keep, above 0 and below 1, as the loss had it.
        nest: what the part is of, as the loss had it: the first channels, the largest weights, or the first blocks.

    Raises:
        RecipeError: the level is out of range, there are no blocks to take out, or the artifact is stored in some form
            already.
        TrainingError: a weight holds values that are not finite.
    """
    if not 0 < level < 1:
        raise RecipeError(f"nested_level takes a part, 0 < level < 1, not {level}")
    refuse_encoded(artifact, "nested_level")
    refuse_broken_weights("nested_level", artifact.model)
    refuse_stored("nested_level", artifact, traceable(artifact.model)[0])
    if nest == "connections":
        masks = largest_masks(artifact.model, level)
        named = [(name, weight.detach()) for name, weight in artifact.model.named_parameters() if name in masks]
        small = store(artifact, {name: Sparse.of(weight.cpu(), masks[name].cpu()) for name, weight in named})
        return small.with_model(with_batch_statistics(small.copy_model(), calibration))
    model = artifact.copy_model()
    image = calibration[0].inputs[:1].to(next(model.parameters()).device)
    plan: dict[str, dict[str, Any]]
    if nest == "layers":
        plan = {block.path: {"gone": True} for block in spare_blocks(removable_blocks(model, image), level)}
        model = apply(model, plan)
    else:
        sizes = Sizes(model, image, traceable(model)[0])
        left("nested_level", sizes.elsewhere)
        channels, kept = leading(sizes, level)
        plan = sizes.plan(channels)
        model = narrowed(model, plan, kept)
        refuse_unfit_heads("nested_level", artifact.model, model, calibration[0].inputs.to(image.device))
    return artifact.with_model(with_batch_statistics(model, calibration), Plan("nested_level", plan))


@surgery("nested_level")
def apply(model: nn.Module, layers: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Give layers so many channels, and leave out blocks that are ``gone``."""
    gone = [path for path, spec in layers.items() if spec.get("gone")]
    for path in gone:
        exchange(model, path, nn.Identity())
    return rebuilt(model, {path: spec for path, spec in layers.items() if path not in gone})


@torch.no_grad()
def with_batch_statistics(model: nn.Module, batches: Sequence[Batch]) -> nn.Module:
    """The same model with the batch statistics of these images."""
    norms = [module for module in model.modules() if isinstance(module, Channelwise) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
        norm.train()
    for batch in batches if norms else []:
        model(batch.inputs.to(next(model.parameters()).device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()
