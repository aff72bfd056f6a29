"""Error weighting by second moments of a layer's inputs and output derivatives on calibration images.

Martens & Grosse: Optimizing Neural Networks with Kronecker-factored Approximate Curvature. arXiv:1503.05671, section 3,
and Grosse & Martens, arXiv:1602.01407, for convolutions: an error E (inputs, outputs) of a layer's weight changes the
network's output by |A^1/2 E G^1/2| on average, where A are the second moments of the layer's inputs and G those of the
derivatives of the network's output by the layer's own. Departs from the papers: derivatives are of the outputs
themselves, in random directions, not of a loss, so that labels are not needed.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.compress._decompositions import eigh
from distill.compress._layers import Layer
from distill.compress._output_error import patches
from distill.errors import RecipeError

Weighting = Literal["none", "inputs", "outputs"]
"""What counts as an error: of the weight, of the layer's output, or of the network's output."""
PATCH = 2304
"""Largest patch (channels x height x width) whose pixels are correlated; beyond it, channels are."""
ROWS = 8192
"""Positions sampled from each batch, about."""
DAMPING = 1e-3
"""Of the mean second moment."""
FLOOR = 1e-30
"""Least second moment: of a layer whose inputs or derivatives are all zero. Its inverse square root is finite."""
AVERAGES = {(True, True): "chwdij->chwdij", (True, False): "chwdiw->chdi", (False, False): "chwdhw->cd"}
"""From a patch's second moments to those of a part of its axes, summed over the others."""


class TracedLayer(NamedTuple):
    """Where a layer computes, for one image."""

    layer: Layer
    inputs: tuple[int, ...]
    """Shape without the batch."""
    outputs: tuple[int, ...]
    maps: tuple[int, ...] = ()
    """Channels, height and width of the maps that were flattened into the inputs of a linear layer."""
    uses: int = 1
    """How many times it runs."""

    @property
    def kernel(self) -> tuple[int, int]:
        return (self.layer.kernel_size[0], self.layer.kernel_size[1]) if isinstance(self.layer, nn.Conv2d) else (1, 1)

    @property
    def positions(self) -> int:
        """How many times one run uses each weight."""
        if isinstance(self.layer, nn.Linear):
            return torch.Size(self.outputs[:-1]).numel()
        return torch.Size(self.outputs[1:]).numel()

    @property
    def macs(self) -> int:
        """Of one run."""
        return self.layer.weight.numel() * self.positions


class Root(NamedTuple):
    """The square root of second moments, and its inverse."""

    root: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, moments: Tensor | None, size: int) -> "Root":
        """The identity without any. What no image moved still counts a little, so that nothing is divided by 0."""
        if moments is None:
            return cls(*[torch.eye(size, dtype=torch.float64)] * 2)
        damping = DAMPING * moments.diagonal().mean() + FLOOR
        values, vectors = eigh(moments)
        scales = (values.clamp(min=0) + damping).sqrt()
        return cls(vectors * scales @ vectors.T, vectors / scales @ vectors.T)


@dataclass(frozen=True)
class ErrorWeights:
    """Second moments that weight the errors of one layer's weight, float64; None: all errors weigh the same."""

    inputs: Tensor | None = None
    """Of patches, (in * height * width)^2, or of channels alone, in^2."""
    outputs: Tensor | None = None
    """(out)^2"""

    def rows(self, traced: TracedLayer, kept: tuple[bool, bool]) -> Root:
        """For rows of the weight made of its input channels and of those axes of its kernel that are ``kept``."""
        channels = traced.layer.weight.shape[1]
        sizes = [size for size, keep in zip(traced.kernel, kept, strict=True) if keep]
        moments = self.inputs
        if moments is not None and len(moments) > channels:
            patch = moments.reshape(channels, *traced.kernel, channels, *traced.kernel)
            moments = (
                torch.einsum(AVERAGES[kept], patch) / torch.Size(traced.kernel).numel() * torch.Size(sizes).numel()
            )
            moments = moments.reshape(channels * torch.Size(sizes).numel(), -1)
        elif moments is not None and sizes:
            moments = torch.kron(moments, torch.eye(torch.Size(sizes).numel(), dtype=moments.dtype))
        return Root.of(moments, channels * torch.Size(sizes).numel())

    def columns(self, traced: TracedLayer, repeats: int = 1) -> Root:
        """For columns of the weight made of its output channels and ``repeats`` values of each."""
        moments = self.outputs
        if moments is not None and repeats > 1:
            moments = torch.kron(moments, torch.eye(repeats, dtype=moments.dtype))
        return Root.of(moments, len(traced.layer.weight) * repeats)


def trace_layers(model: nn.Module, layers: Mapping[str, Layer], images: Tensor) -> dict[str, TracedLayer]:
    """Where each layer computes; a layer that the network does not use, or uses at several sizes, is left out."""
    seen: dict[str, Counter[TracedLayer]] = {path: Counter() for path in layers}
    maps = [tuple(images.shape[1:])]

    def look(path: str) -> Callable[..., None]:
        def see(layer: Layer, inputs: tuple[Tensor], output: Tensor) -> None:
            shape = _shape(layer, inputs[0])
            flattened = len(shape) == 1 and len(maps[-1]) == 3 and torch.Size(maps[-1]).numel() == shape[0]
            seen[path][TracedLayer(layer, shape, _shape(layer, output), maps[-1] if flattened else ())] += 1

        return see

    def remember(_: str) -> Callable[..., None]:
        return lambda module, inputs, output: maps.append(tuple(output.shape[1:])) if _is_map(output) else None

    with _watching(layers, look), _watching(dict(model.named_modules()), remember), torch.no_grad():
        model.eval()(images[:1])
    alike = {path: found.popitem() for path, found in seen.items() if len(found) == 1}
    return {path: traced._replace(uses=uses) for path, (traced, uses) in alike.items()}


def _is_map(output: Any) -> bool:
    return isinstance(output, Tensor) and output.dim() == 4


def _shape(layer: Layer, values: Tensor) -> tuple[int, ...]:
    """Of one image's values; a linear layer may find windows or tokens where the batch was, as in Swin."""
    return tuple(values.shape if isinstance(layer, nn.Linear) and len(values) > 1 else values.shape[1:])


def error_weights(
    model: nn.Module, layers: Mapping[str, Layer], batches: Sequence[Batch], weighting: Weighting
) -> dict[str, ErrorWeights]:
    """The error weights of every layer, from a few batches of images.

    Args:
        model: in eval mode; left as it is.
        layers: by path.
        batches: labels are not read.
        weighting: ``inputs`` leaves the outputs' moments out, ``none`` both.

    Raises:
        RecipeError: there are no images.
    """
    if weighting == "none" or not layers:
        return dict.fromkeys(layers, ErrorWeights())
    if not batches:
        raise RecipeError(
            f"weighting={weighting} looks at images, but the data set has none to look at: weighting=none"
        )
    generator = torch.Generator().manual_seed(0) if weighting == "outputs" else None
    uses = [use for batch in batches for use in _uses(model, layers, batch.inputs, generator)]
    inputs = {path: [moments for used, moments, _ in uses if used == path] for path in layers}
    outputs = {path: [moments for used, _, moments in uses if used == path and moments is not None] for path in layers}
    return {path: ErrorWeights(_mean(inputs[path]), _mean(outputs[path])) for path in layers}


def _uses(
    model: nn.Module, layers: Mapping[str, Layer], images: Tensor, generator: torch.Generator | None
) -> list[tuple[str, Tensor, Tensor | None]]:
    """For every use of a layer its path, the moments of its inputs and, with a generator, of its outputs' slopes."""
    seen: list[tuple[str, Tensor, Tensor]] = []

    def look(path: str) -> Callable[..., Tensor]:
        def see(layer: Layer, given: tuple[Tensor], result: Tensor) -> Tensor:
            seen.append((path, _input_moments(layer, given[0].detach()), result))
            return result.clone()  # whatever is done to it in place is not done to what was seen

        return see

    with _watching(layers, look), torch.set_grad_enabled(generator is not None):
        output = model(images.clone().requires_grad_(generator is not None))
    if generator is None:
        return [(path, moments, None) for path, moments, _ in seen]
    direction = torch.randint(0, 2, output.shape, generator=generator).to(output) * 2 - 1
    slopes = torch.autograd.grad(output, [result for *_, result in seen], direction, allow_unused=True)
    return [
        (path, moments, _output_moments(layers[path], slope, result))
        for (path, moments, result), slope in zip(seen, slopes, strict=True)
    ]


def _mean(moments: list[Tensor]) -> Tensor | None:
    return torch.stack(moments).mean(0) if moments else None


def _input_moments(layer: Layer, given: Tensor) -> Tensor:
    """Of patches, or of channels where patches are too large; averaged over positions and images."""
    if isinstance(layer, nn.Conv2d) and layer.weight[0].numel() > PATCH:
        rows = given.movedim(1, -1).flatten(0, -2)
    else:
        rows = patches(layer, given)[0].mT
    rows = rows[:: max(1, len(rows) // ROWS)].double()
    return rows.T @ rows / len(rows)


def _output_moments(layer: Layer, slope: Tensor | None, output: Tensor) -> Tensor:
    """Averaged over images, summed over positions; an output that nothing listens to has none."""
    if slope is None:
        slope = torch.zeros_like(output)
    rows = (slope.movedim(1, -1) if isinstance(layer, nn.Conv2d) else slope).flatten(0, -2).double()
    return rows.T @ rows / len(slope)


@contextmanager
def _watching(layers: Mapping[str, nn.Module], look: Callable[[str], Callable[..., Any]]) -> Iterator[None]:
    def positional(see: Callable[..., Any]) -> Callable[..., Any]:
        return lambda layer, given, named, output: see(layer, (*given, *named.values()), output)

    handles = [layer.register_forward_hook(positional(look(path)), with_kwargs=True) for path, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
