"""Functions of single values, and softmax."""

from math import erf, sqrt

import numpy as np

from distill.runtime.operators.registry import operator

_erf = np.vectorize(erf, otypes=[np.float32])


@operator("relu")
def relu(input: np.ndarray) -> np.ndarray:
    return np.maximum(input, 0)


@operator("hardtanh")
def hardtanh(input: np.ndarray, min_val: float = -1, max_val: float = 1) -> np.ndarray:
    return np.clip(input, min_val, max_val)


@operator("relu6")
def relu6(input: np.ndarray) -> np.ndarray:
    return np.clip(input, 0, 6)


@operator("clamp", "clamp_max", "clamp_min")
def clamp(input: np.ndarray, min: float | None = None, max: float | None = None) -> np.ndarray:
    return np.clip(input, min, max) if min is not None or max is not None else input


@operator("leaky_relu")
def leaky_relu(input: np.ndarray, negative_slope: float = 0.01) -> np.ndarray:
    return np.where(input > 0, input, input * np.float32(negative_slope))


@operator("prelu")
def prelu(input: np.ndarray, weight: np.ndarray) -> np.ndarray:
    slopes = weight.reshape(-1, *[1] * (input.ndim - 2))
    return np.where(input > 0, input, input * slopes)


@operator("elu")
def elu(input: np.ndarray, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> np.ndarray:
    below = np.float32(alpha) * np.expm1(np.minimum(input, 0) * np.float32(input_scale))
    return np.where(input > 0, input, below) * np.float32(scale)


@operator("sigmoid")
def sigmoid(input: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(input))  # never overflows
    return np.where(input >= 0, 1, small) / (1 + small)


@operator("silu")
def silu(input: np.ndarray) -> np.ndarray:
    return input * sigmoid(input)


@operator("glu")
def glu(input: np.ndarray, dim: int = -1) -> np.ndarray:
    """Dauphin et al. arXiv:1612.08083, equation 1: one half of the values opens gates for the other."""
    values, gates = np.split(input, 2, dim)
    return values * sigmoid(gates)


@operator("hardsigmoid")
def hardsigmoid(input: np.ndarray) -> np.ndarray:
    return np.clip(input + 3, 0, 6) / np.float32(6)


@operator("hardswish")
def hardswish(input: np.ndarray) -> np.ndarray:
    return input * hardsigmoid(input)


@operator("gelu")
def gelu(input: np.ndarray, approximate: str = "none") -> np.ndarray:
    if approximate == "tanh":
        inner = np.float32(sqrt(2 / np.pi)) * (input + np.float32(0.044715) * input**3)
        return np.float32(0.5) * input * (1 + np.tanh(inner))
    return np.float32(0.5) * input * (1 + _erf(input * np.float32(sqrt(0.5))))


@operator("softplus")
def softplus(input: np.ndarray, beta: float = 1, threshold: float = 20) -> np.ndarray:
    scaled = input * np.float32(beta)
    return np.where(scaled > threshold, input, np.logaddexp(0, scaled) / np.float32(beta)).astype(input.dtype)


@operator("softmax")
def softmax(input: np.ndarray, dim: int, dtype: str | None = None) -> np.ndarray:
    powers = np.exp(input - input.max(dim, keepdims=True))
    return powers / powers.sum(dim, keepdims=True)


@operator("log_softmax")
def log_softmax(input: np.ndarray, dim: int, dtype: str | None = None) -> np.ndarray:
    shifted = input - input.max(dim, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(dim, keepdims=True))
