"""Denil et al.: Predicting Parameters in Deep Learning. arXiv:1306.0543, sections 3 and 4: some rows of a weight are
kept, and a dictionary that follows from a kernel over the layer's inputs predicts the others.

W = U V: V has the kept rows, U = K_ik (K_kk + ridge I)^-1 those of the dictionary. Departs from the paper: the network
has been trained already, so that V are the rows with which W = U V comes nearest to its weight; kept rows are kept as
they are, not smoothed by the ridge, and trained in units of how far they move the others; rows are kept where the
kernel predicts them least, not at random; all outputs keep the same rows (one column, in the paper's words).
Fine-tuning trains V alone, as the paper does.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Annotated, Any, Literal, get_args

import torch
from torch import Tensor, nn

from distill.compress import hook
from distill.compress._layers import Layer
from distill.compress.low_rank import _dictionaries
from distill.compress.low_rank._allocation import Aim, Option
from distill.compress.low_rank._composed import Composed, PlainLayer
from distill.compress.low_rank._error_weighting import ErrorWeights, TracedLayer
from distill.compress.low_rank._factorise import factorisation, rebuild
from distill.registry import surgery
from distill.registry.ranges import Range

Kernel = Literal["spatial", "covariance"]
LEVELS = 64
"""Numbers of kept rows tried with each kernel."""
LENGTHS = (0.5, 1.0, 2.0, 4.0)
"""Of the squared exponential, in pixels."""
INPUTS = 2304
"""Most inputs of a layer, those of 256 channels of 3 x 3 pixels: the time that a kernel takes grows with their cube."""
Ridge = Annotated[float, Range(at_least=0, at_most=0.01)]


class PredictedLayer(Composed):
    """A linear layer or a convolution that keeps some rows of its weight and predicts the others.

    A spatial dictionary is computed when the layer is built. One from activations is kept, as a buffer: it is stored,
    and no training moves it.

    Args:
        layer: what it takes the place of.
        spec: ``ranks`` with the number of kept rows, their ``locations``, whether it runs ``dense``, and for a spatial
            dictionary its ``grid``, ``length`` and ``ridge``.
    """

    predicted: Tensor
    """Rows of the dictionary for the rows that are not kept, (inputs - kept, kept)."""
    order: Tensor
    """Where each input is among the kept and then the other ones."""
    units: Tensor
    """Of the kept rows, see `_dictionaries.units`."""

    def __init__(self, layer: Layer, spec: Mapping[str, Any]) -> None:
        super().__init__()
        inputs, device = layer.weight[0].numel(), layer.weight.device
        _check(spec, inputs)
        locations = torch.tensor(spec["locations"], device=device)
        self.runs_dense = bool(spec["dense"])
        self.geometry: dict[str, Any] | None = None
        self.shape = layer.weight.shape[1:]
        if isinstance(layer, nn.Conv2d):
            self.geometry = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        self.kept = nn.Parameter(layer.weight.new_empty(len(layer.weight), len(locations)))
        predicted = layer.weight.new_empty(inputs - len(locations), len(locations))
        order, units = locations.new_empty(inputs), layer.weight.new_empty(len(locations))
        if device.type != "meta":
            order = _dictionaries.rows_in_order(inputs, locations).argsort()
            if "grid" in spec:
                kernel = _dictionaries.squared_exponential(spec["grid"], spec["length"])
                predicted = _dictionaries.predictions(kernel, locations.cpu(), spec["ridge"]).to(predicted)
                units = _dictionaries.units(predicted.double()).to(predicted)
        self.register_buffer("predicted", predicted, persistent="grid" not in spec)
        self.register_buffer("units", units, persistent="grid" not in spec)
        self.register_buffer("order", order, persistent=False)
        self.bias = layer.bias

    def plain_layers(self) -> Iterator[PlainLayer]:
        first = (_dictionaries.dictionary(self.predicted, self.order) / self.units).T
        if self.runs_dense:
            yield PlainLayer((self.kept @ first).unflatten(1, self.shape), self.bias, self.geometry)
            return
        yield PlainLayer(first.unflatten(1, self.shape), None, self.geometry)
        kernel = (1,) * (len(self.shape) - 1)
        yield PlainLayer(self.kept.reshape(*self.kept.shape, *kernel), self.bias, None if self.geometry is None else {})


def _check(spec: Mapping[str, Any], inputs: int) -> None:
    """Raises ValueError: an entry of a plan that is for another layer, which a damaged file may have."""
    locations, grid = spec["locations"], spec.get("grid")
    if inputs > INPUTS or not 0 < len(locations) < inputs or len(set(locations)) < len(locations):
        raise ValueError(f"{len(locations)} kept rows of {inputs}")
    if not all(type(place) is int and 0 <= place < inputs for place in locations):
        raise ValueError(f"kept rows that are not from 0 to {inputs - 1}")
    if grid is not None and (len(grid) != 3 or min(grid) < 1 or prod(grid) != inputs):
        raise ValueError(f"a grid of {grid} for {inputs} inputs")


@hook("predict_parameters")
@factorisation(PredictedLayer)
def predict_parameters(
    traced: TracedLayer, error_weights: ErrorWeights, *, kernel: Kernel | None = None, ridge: Ridge = 1e-4
) -> "Predictions | str":
    """Some rows of each weight are kept and trained, the others are predicted from these; a layer that would not get
    smaller, or faster, stays as it is.

    Settings: see `distill.compress.low_rank._factorise.factorisation`, and

    Args:
        traced: the layer.
        error_weights: of its weight.
        kernel: which inputs are alike. ``spatial``: those that lie near each other, in a convolution's kernel or in the
            maps that are a linear layer's input; the dictionary is computed again when a file is read, and costs
            nothing. ``covariance``: those that vary together on calibration images; the dictionary is stored, and
            counts as parameters. Without one, the better of the two at every size.
        ridge: of the regression, in units of the kernel's variance. It keeps predictions of float32 steady; it is too
            small to change by much the errors that sizes are chosen by, which are those without it.
    """
    layer = traced.layer
    if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
        return f"{layer.padding_mode} padding"
    if layer.weight[0].numel() > INPUTS:
        return f"more than {INPUTS} inputs"
    kernels = [kernel] if kernel else list(get_args(Kernel))
    kernels = [one for one in kernels if (len(_grid(traced)) if one == "spatial" else error_weights.inputs is not None)]
    if not kernels:
        return "inputs without places or images to compare them by"
    return Predictions(traced, error_weights, kernels, ridge)


@surgery("predict_parameters")
def apply(model: nn.Module, layers: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Put layers with the planned dictionaries in place of each one."""
    return rebuild(model, layers, PredictedLayer)


class Predictions:
    """All sets of kept rows that a weight may become, for weighted errors."""

    def __init__(
        self, traced: TracedLayer, error_weights: ErrorWeights, kernels: Sequence[Kernel], ridge: float
    ) -> None:
        self.traced, self.kernels, self.ridge = traced, kernels, ridge
        self.rows = error_weights.rows(traced, (True, True)).root
        self.columns = error_weights.columns(traced).root
        self.weight = traced.layer.weight.detach().double().flatten(1).T

    @cached_property
    def weighted(self) -> Tensor:
        return self.rows @ self.weight @ self.columns

    @property
    def importance(self) -> float:
        return float(self.weighted.square().sum())

    def options(self, _: Aim) -> Sequence[Option]:
        """Several numbers of kept rows with every kernel."""
        found: list[Option] = []
        if "spatial" in self.kernels:
            for length in LENGTHS:
                place = {"grid": list(_grid(self.traced)), "length": length, "ridge": self.ridge}
                found += self._options(_dictionaries.squared_exponential(_grid(self.traced), length), place)
        if "covariance" in self.kernels:
            found += self._options(self._moments, {})
        return found

    def fill(self, module: nn.Module, spec: Mapping[str, Any]) -> None:
        assert isinstance(module, PredictedLayer)
        if "grid" not in spec:
            locations = torch.tensor(spec["locations"])
            module.predicted.copy_(_dictionaries.predictions(self._moments, locations, self.ridge))
            module.units.copy_(_dictionaries.units(module.predicted.double()))
        whole = _dictionaries.dictionary(module.predicted.double().cpu(), module.order.cpu())
        nearest = torch.linalg.lstsq(self.rows @ whole, self.rows @ self.weight).solution
        module.kept.copy_(nearest.T * module.units)

    @cached_property
    def _moments(self) -> Tensor:
        return self.rows @ self.rows

    def _options(self, kernel: Tensor, place: Mapping[str, Any]) -> list[Option]:
        """Without a ridge W = U V holds any combination of the kept rows' columns of the kernel: one QR decomposition
        gives the errors of all numbers of kept rows."""
        inputs, outputs = self.weight.shape
        importance = self._moments.diagonal() if place else torch.ones(inputs, dtype=kernel.dtype)
        order = _dictionaries.kept_first(kernel, importance)
        most = min(len(order), inputs - 1 if place else min(inputs, outputs) - 1)
        span, _ = torch.linalg.qr(self.rows @ kernel[:, order[:most]])
        held = (span.T @ self.weighted).square().sum(1).cumsum(0) / max(self.importance, 1e-300)
        counts = {-(-most * level // LEVELS) for level in range(1, LEVELS + 1)} - {0}
        return [
            self._option(order[:count].tolist(), max(0.0, 1 - float(held[count - 1])), place)
            for count in sorted(counts)
        ]

    def _option(self, locations: list[int], error: float, place: Mapping[str, Any]) -> Option:
        inputs, outputs = self.weight.shape
        count = len(locations)
        macs = count * (inputs + outputs) * self.traced.positions
        spec = {"ranks": [count], "locations": locations, "dense": macs >= self.traced.macs, **place}
        params = count * outputs + (0 if place else count * (inputs - count + 1))
        return Option(spec, params, min(macs, self.traced.macs), error)


def _grid(traced: TracedLayer) -> tuple[int, ...]:
    """Channels, height and width of the inputs of one output; empty where inputs have no places."""
    grid = (traced.layer.weight.shape[1], *traced.kernel) if isinstance(traced.layer, nn.Conv2d) else traced.maps
    return grid if torch.Size(grid[1:]).numel() > 1 else ()
