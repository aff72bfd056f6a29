"""What data modules yield, and what reads it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

Index = Tensor | slice | int
"""Samples of a batch: positions, a mask, or a slice."""
IGNORED = 255
"""In masks: pixels without a class, as in PASCAL VOC, which neither losses nor metrics count."""


class Batch(NamedTuple):  # a tuple, not a frozen dataclass: Lightning refuses to move those between devices
    """Samples on their way through teacher, student and losses."""

    inputs: Tensor
    """(batch, channels, height, width), normalised; of several images a sample, stacked along the channels."""
    labels: Any
    """What the task defines: a tensor, or a mapping or tuple of such with one row per sample; a list has one entry per
    sample, of any size (boxes of an image)."""
    sample: Tensor
    """(batch,) position of each sample in the training set: key of caches and memory banks. It stays on the CPU while
    training moves all else to a GPU."""
    view: int | None = None
    """Which of its stored views each sample shows, if any; code that changes the inputs of a batch sets it to None."""

    def take(self, index: Index) -> "Batch":
        """Some of the samples, with everything that belongs to them."""
        inputs, labels, sample = (take(part, index) for part in (self.inputs, self.labels, self.sample))
        return self._replace(inputs=inputs, labels=labels, sample=sample)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with all of its tensors on another device."""
        return Batch(*(map_tensors(lambda tensor: tensor.to(device), part) for part in self))


Predict = Callable[[Tensor], Tensor]
"""From a batch of inputs to outputs: a module in evaluation mode, or the session of an exported file."""


def map_tensors(function: Callable[[Tensor], Tensor], nest: Any) -> Any:
    """A nest of mappings, lists and tuples with ``function`` applied to each of its tensors; all else stays."""
    match nest:
        case Tensor():
            return function(nest)
        case Mapping():
            return {key: map_tensors(function, value) for key, value in nest.items()}
        case list():
            return [map_tensors(function, value) for value in nest]
        case tuple():
            values = (map_tensors(function, value) for value in nest)
            return type(nest)(*values) if hasattr(nest, "_fields") else tuple(values)
    return nest


def take(nest: Any, index: Index) -> Any:
    """Some rows of every tensor in a nest, and the same entries of every list, which has one per sample.

    An integer keeps the dimension of samples, as the slice of length one does.
    """
    index = slice(index, index + 1 or None) if isinstance(index, int) else index
    match nest:
        case Tensor():
            return nest[index]
        case Mapping():
            return {key: take(value, index) for key, value in nest.items()}
        case list():
            return [nest[position] for position in torch.arange(len(nest))[index].tolist()]
        case tuple():
            values = (take(value, index) for value in nest)
            return type(nest)(*values) if hasattr(nest, "_fields") else tuple(values)
    return nest
