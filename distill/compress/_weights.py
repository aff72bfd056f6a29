"""Which weights get codes, how a weight is cut into slices, and what is said about the result."""

import logging
from collections.abc import Mapping, Sequence
from math import prod

import torch.nn.functional as F
from torch import Tensor

from distill.artifact import Artifact, store
from distill.artifact.storage import Stored
from distill.compress._layers import chosen, refuse_broken, refuse_encoded
from distill.models.channels.narrow import Transposed, is_weight


def weights_of(artifact: Artifact, hook: str, patterns: list[str] | None) -> dict[str, Tensor]:
    """The weights of convolutions, linear layers and factors by name, each once; biases and normalisation are none, nor
    is what a network holds beside its layers, such as class tokens, position embeddings and scales of blocks.

    Raises:
        RecipeError: the artifact is encoded, or a glob matches nothing.
        TrainingError: a weight holds values that are not finite.
    """
    refuse_encoded(artifact, hook)
    weights = {name: p.detach() for name, p in artifact.model.named_parameters() if is_weight(artifact.model, name, p)}
    paths = set(chosen(dict.fromkeys(name.rpartition(".")[0] for name in weights), patterns))
    weights = {name: weight for name, weight in weights.items() if name.rpartition(".")[0] in paths}
    for name, weight in weights.items():
        refuse_broken(hook, name, weight)
    return weights


def channels_of(artifact: Artifact, name: str) -> int:
    """The axis of a weight that has one entry for each output channel."""
    return 1 if isinstance(artifact.model.get_submodule(name.rpartition(".")[0]), Transposed) else 0


def adopt(hook: str, artifact: Artifact, stored: Mapping[str, Stored]) -> Artifact:
    """`store`, and one log line about it; each weight by name with ``--debug``."""
    log = logging.getLogger(f"distill.compress.{hook}")
    parameters = dict(artifact.model.named_parameters())
    total, wrong = 0.0, 0.0
    for name, form in stored.items():
        weight = parameters[name].detach().cpu()
        size, error = float(weight.square().sum()), float((form.decode() - weight).square().sum())
        total, wrong = total + size, wrong + error
        relative = (error / size) ** 0.5 if size else 0.0
        log.debug("%s: %s: %d values, relative error %.4f", hook, name, weight.numel(), relative)
    log.info("%s: %d weights, relative error %.4f", hook, len(stored), (wrong / total) ** 0.5 if total else 0.0)
    return store(artifact, stored)


def slices(tensor: Tensor, axis: int | None, size: int | None = None) -> Tensor:
    """A tensor as rows: all of it, each slice along ``axis``, or each ``size`` neighbours of a slice.

    Where ``size`` does not divide a slice, its last row is filled up with zeros.
    """
    if axis is None:
        return tensor.reshape(1, -1)
    rows = tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1)
    return rows if size is None else F.pad(rows, (0, -rows.shape[1] % size)).reshape(-1, size)


def slice_count(shape: Sequence[int], axis: int | None, size: int | None = None) -> int:
    """The number of rows that `slices` makes of a tensor of that shape."""
    if axis is None:
        return 1
    return shape[axis] * (1 if size is None else -(-prod(shape[:axis]) * prod(shape[axis + 1 :]) // size))


def unsliced(rows: Tensor, shape: tuple[int, ...], axis: int | None) -> Tensor:
    """The inverse of `slices`."""
    if axis is None:
        return rows.reshape(shape)
    others = shape[:axis] + shape[axis + 1 :]
    values = rows.reshape(shape[axis], -1)[:, : prod(others)]
    return values.reshape(shape[axis], *others).movedim(0, axis).contiguous()
