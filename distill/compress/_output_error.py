"""Second moments of a layer's inputs on calibration batches.

For a layer of one weight matrix, |W x - V x|^2 summed over all x depends on the inputs through their moments only, so
that a search for V need not see them again.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.batch import Batch
from distill.compress._layers import Layer, layer_at
from distill.models.called import first_input


class Moments(NamedTuple):
    """Of the inputs x that a compressed network gives a layer, and z that the exact one does; (groups, in, in) each."""

    inputs: Tensor
    """Sum of x x^T."""
    drift: Tensor
    """Sum of (z - x) x^T."""

    def errors(self, exact: Tensor, coded: Tensor) -> Tensor:
        """The squared error of each output, less what no weight could change: |W z - V x|^2 - |W (z - x)|^2.

        Args:
            exact: W, (groups, out, in).
            coded: V, of the same shape.
        """
        wrong = exact - coded
        return ((wrong @ self.inputs + 2 * exact @ self.drift) * wrong).sum(2)


def patches(layer: Layer, inputs: Tensor) -> Tensor:
    """All that single outputs of a layer see: (groups, in, positions)."""
    if isinstance(layer, nn.Linear):
        return inputs.reshape(1, -1, inputs.shape[-1]).mT
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(inputs, layer._reversed_padding_repeated_twice, mode)
    columns = F.unfold(padded, layer.kernel_size, layer.dilation, stride=layer.stride)  # (batch, in * k * k, places)
    return columns.unflatten(1, (layer.groups, -1)).permute(1, 2, 0, 3).flatten(2)


@torch.no_grad()
def moments(exact: nn.Module, coded: nn.Module, paths: Sequence[str], batches: Sequence[Batch]) -> Moments | None:
    """What both networks give the layers at ``paths``, which have one weight; None if they never ask these."""
    seen: tuple[list[Tensor], list[Tensor]] = ([], [])
    handles = [
        model.get_submodule(path).register_forward_pre_hook(
            lambda _, *given, to=to: to.append(first_input(*given)), with_kwargs=True
        )
        for model, to in zip((exact, coded), seen, strict=True)
        for path in paths
    ]
    layer, total = layer_at(coded, paths[0]), None
    for batch in batches:
        exact(batch.inputs), coded(batch.inputs)
        for exact_input, coded_input in zip(*seen, strict=True):
            x, z = patches(layer, coded_input), patches(layer, exact_input)
            now = torch.stack([x @ x.mT, (z - x) @ x.mT]).double()
            total = now if total is None else total + now
        for inputs in seen:
            inputs.clear()
    for handle in handles:
        handle.remove()
    return None if total is None else Moments(*total.float())
