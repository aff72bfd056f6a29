"""Sums, products and comparisons, position by position or along axes. Scalars do not change the type of an array."""

import operator as python
from collections.abc import Callable
from math import isinf
from typing import Any

import numpy as np

from distill.runtime.operators.registry import OPERATORS, operator

Operand = Any
"""An array, or a number."""
Axes = int | list[int] | None

UNARY: dict[str, Callable[[Operand], Operand]] = {
    **{"abs": np.abs, "neg": np.negative, "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "tanh": np.tanh},
    **{"sin": np.sin, "cos": np.cos, "floor": np.floor, "ceil": np.ceil, "round": np.rint, "sign": np.sign},
    **{"logical_not": np.logical_not, "square": np.square, "reciprocal": lambda x: 1 / x},
    "rsqrt": lambda x: 1 / np.sqrt(x),
}
BINARY: dict[str, Callable[[Operand, Operand], Operand]] = {
    **{"mul": python.mul, "truediv": python.truediv, "floordiv": python.floordiv},
    **{"mod": python.mod, "remainder": python.mod, "maximum": np.maximum, "minimum": np.minimum},
    **{"eq": python.eq, "ne": python.ne, "lt": python.lt, "le": python.le, "gt": python.gt, "ge": python.ge},
    **{"logical_and": np.logical_and, "logical_or": np.logical_or, "pow": python.pow},
    "floor_divide": python.floordiv,
}


def _unary(function: Callable[[Operand], Operand]) -> Callable[..., Operand]:
    return lambda input: function(input)


def _binary(function: Callable[[Operand, Operand], Operand]) -> Callable[..., Operand]:
    def compute(input: Operand, other: Operand) -> Operand:
        return function(input, other)

    return compute


OPERATORS.update({name: _unary(function) for name, function in UNARY.items()})
OPERATORS.update({name: _binary(function) for name, function in BINARY.items() if name != "pow"})


@operator("div")
def div(input: Operand, other: Operand, rounding_mode: str | None = None) -> Operand:
    if rounding_mode is None:
        return input / other
    return input // other if rounding_mode == "floor" else np.trunc(input / other)


@operator("pow")
def power(input: Operand, exponent: Operand) -> Operand:
    return input**exponent


@operator("add")
def add(input: Operand, other: Operand, alpha: float = 1) -> Operand:
    return input + (other if alpha == 1 else other * alpha)


@operator("sub")
def sub(input: Operand, other: Operand, alpha: float = 1) -> Operand:
    return input - (other if alpha == 1 else other * alpha)


@operator("rsub")
def rsub(input: Operand, other: Operand, alpha: float = 1) -> Operand:
    return other - (input if alpha == 1 else input * alpha)


@operator("where")
def where(condition: np.ndarray, input: Operand, other: Operand) -> np.ndarray:
    return np.asarray(np.where(condition, input, other)).astype(np.result_type(input, other), copy=False)


@operator("masked_fill")
def masked_fill(input: np.ndarray, mask: np.ndarray, value: Operand) -> np.ndarray:
    return np.where(mask, np.asarray(value, input.dtype), input)


@operator("mean")
def mean(input: np.ndarray, dim: Axes = None, keepdim: bool = False, dtype: str | None = None) -> np.ndarray:
    return input.mean(_axes(dim), keepdims=keepdim)


@operator("sum")
def total(input: np.ndarray, dim: Axes = None, keepdim: bool = False, dtype: str | None = None) -> np.ndarray:
    return input.sum(_axes(dim), keepdims=keepdim)


@operator("amax")
def amax(input: np.ndarray, dim: Axes = None, keepdim: bool = False) -> np.ndarray:
    return input.max(_axes(dim), keepdims=keepdim)


@operator("argmax")
def argmax(input: np.ndarray, dim: int | None = None, keepdim: bool = False) -> np.ndarray:
    return np.asarray(np.argmax(input, dim, keepdims=keepdim))


@operator("linalg_vector_norm")
def vector_norm(
    input: np.ndarray, ord: float = 2, dim: Axes = None, keepdim: bool = False, dtype: str | None = None
) -> np.ndarray:
    sizes, along = np.abs(input), _axes(dim)
    if isinf(ord):
        return (sizes.max if ord > 0 else sizes.min)(along, keepdims=keepdim)
    if ord == 0:
        return np.count_nonzero(input, along, keepdims=keepdim).astype(input.dtype)
    return (sizes**ord).sum(along, keepdims=keepdim) ** (1 / ord)


def _axes(dim: Axes) -> int | tuple[int, ...] | None:
    return (tuple(dim) or None) if isinstance(dim, list | tuple) else dim
