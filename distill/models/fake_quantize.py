"""Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference.
arXiv:1712.05877, section 2: a value is (code - zero) * scale, its code a uint8.

In PyTorch, layers that are to run on integers compute in float32 with values that are on such grids; the gradient of a
rounded value passes where nothing is cut off (section 3). Written to ONNX, the same layers are int8 weights between
QuantizeLinear and DequantizeLinear, which runtimes fuse into integer kernels. Activations are unsigned, as x86 wants
them: its 8-bit products have one unsigned factor.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from distill.errors import ExportError

MARK = "code_bits"
"""The attribute of a layer with integer weights."""

LEVELS = 255
"""The largest code of an activation."""


class QuantizationParams(NamedTuple):
    """The values that the codes from 0 to 255 stand for; 0.0 is always one of them."""

    scale: float
    zero: int

    @classmethod
    def over(cls, low: float, high: float) -> "QuantizationParams":
        """The grid from ``low`` to ``high``, both widened to include 0."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = float(f"{(high - low) / LEVELS:.6g}") or 1.0  # digits beyond float32's would only lengthen the plan
        return cls(scale, round(-low / scale))

    def __call__(self, values: Tensor) -> Tensor:
        """The nearest values on the grid."""
        if torch.onnx.is_in_onnx_export():
            scale, zero = torch.tensor(self.scale), torch.tensor(self.zero, dtype=torch.uint8)
            codes = _onnx("QuantizeLinear", (values, scale, zero), torch.uint8)
            return _onnx("DequantizeLinear", (codes, scale, zero), torch.float32)
        if torch.compiler.is_exporting():  # `fake_quantize` cannot be traced for any batch size; these are its steps
            codes = (values.float() * float(1 / np.float32(self.scale))).round() + self.zero
            return (codes.clamp(0, LEVELS) - self.zero) * self.scale
        return torch.fake_quantize_per_tensor_affine(values.float(), self.scale, self.zero, 0, LEVELS)


@dataclass(frozen=True)
class QuantizeInput:
    """A forward pre-hook with keywords: the layer reads its input quantized."""

    grid: QuantizationParams

    def __call__(
        self, layer: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Any]
    ) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        if arguments:
            return (self.grid(arguments[0]), *arguments[1:]), named
        first, *others = named.items()
        return (), {first[0]: self.grid(first[1]), **dict(others)}


@dataclass(frozen=True)
class QuantizeOutput:
    """A forward hook: every reader gets the module's output quantized."""

    grid: QuantizationParams

    def __call__(self, module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        return self.grid(output)


def largest_code(bits: int) -> int:
    """Of a weight; its codes are symmetric."""
    return int(2 ** (bits - 1) - 1)


class IntegerWeight(nn.Module):
    """A parametrization: a layer's weight as int8 codes and one scale per output channel."""

    codes: Tensor
    scales: Tensor

    def __init__(self, codes: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes.to(torch.int8))
        self.register_buffer("scales", scales)

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None, bits: int) -> "IntegerWeight":
        """The codes that ``weight`` is made of, the largest of each channel being the largest there is."""
        peaks = weight.flatten(1).abs().amax(1)
        # Where all codes are 0 any scale will do, and a small one is fine enough for the codes of the bias.
        spare = torch.zeros_like(peaks) if bias is None else bias.abs() * 2.0**-16
        scales = torch.where(peaks > 0, peaks / largest_code(bits), torch.where(spare > 0, spare, 1.0))
        return cls((weight / _rows(scales, weight)).round(), scales)

    def forward(self, weight: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            zeros = torch.zeros_like(self.scales, dtype=torch.int8)  # without, ONNX Runtime has no integer `Gemm`
            return _onnx("DequantizeLinear", (self.codes, self.scales, zeros), torch.float32, {"axis": 0})
        return self.codes * _rows(self.scales, weight)


def mark(layer: nn.Module, bits: int) -> None:
    """Say that the layer's weights are codes of so many bits, one scale per output channel, from here on."""
    setattr(layer, MARK, bits)


def is_integer(model: nn.Module) -> bool:
    """Whether some of its layers have integer weights."""
    return any(hasattr(module, MARK) for module in model.modules())


@torch.no_grad()
def write_codes(model: nn.Module) -> None:
    """Let layers with integer weights compute from their codes, as the file will.

    Raises:
        ExportError: a weight is not made of codes any more.
    """
    for path, layer in list(model.named_modules()):
        if bits := getattr(layer, MARK, None):
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            weight = IntegerWeight.of(layer.weight, layer.bias, bits)
            if not torch.equal(weight(layer.weight), layer.weight):
                raise ExportError(f"the weight of '{path}' was changed after 'int8': put that hook before it")
            parametrize.register_parametrization(layer, "weight", weight)


def _rows(scales: Tensor, weight: Tensor) -> Tensor:
    return scales.reshape(-1, *[1] * (weight.dim() - 1))


def _onnx(operator: str, inputs: tuple[Tensor, ...], dtype: torch.dtype, settings: Any = None) -> Tensor:
    return torch.onnx.ops.symbolic(operator, inputs, settings, dtype=dtype, shape=inputs[0].shape)
