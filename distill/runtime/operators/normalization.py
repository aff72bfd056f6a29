"""Normalisation by running or by own statistics."""

import numpy as np

from distill.runtime.operators.registry import operator


@operator("batch_norm")
def batch_norm(
    input: np.ndarray,
    weight: np.ndarray | None,
    bias: np.ndarray | None,
    running_mean: np.ndarray,
    running_var: np.ndarray,
    eps: float = 1e-5,
) -> np.ndarray:
    """Ioffe & Szegedy arXiv:1502.03167, algorithm 2: with running statistics, one scale and one shift per channel."""
    scale, shift = scale_and_shift(weight, bias, running_mean, running_var, eps)
    others = [1] * (input.ndim - 2)
    return input * scale.reshape(-1, *others) + shift.reshape(-1, *others)


def scale_and_shift(
    weight: np.ndarray | None, bias: np.ndarray | None, mean: np.ndarray, var: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """What batch normalisation multiplies by and adds."""
    scale = 1 / np.sqrt(var.astype(np.float64) + eps) * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - mean * scale
    return scale.astype(np.float32), shift.astype(np.float32)


@operator("layer_norm")
def layer_norm(
    input: np.ndarray,
    normalized_shape: list[int],
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> np.ndarray:
    """Ba, Kiros & Hinton: Layer Normalization. arXiv:1607.06450."""
    result = _standardized(input, tuple(range(-len(normalized_shape), 0)), eps)
    result = result if weight is None else result * weight
    return result if bias is None else result + bias


@operator("group_norm")
def group_norm(
    input: np.ndarray,
    num_groups: int,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> np.ndarray:
    """Wu & He: Group Normalization. arXiv:1803.08494."""
    grouped = input.reshape(len(input), num_groups, -1)
    return _affine(_standardized(grouped, (2,), eps).reshape(input.shape), weight, bias)


@operator("instance_norm")
def instance_norm(
    input: np.ndarray,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    running_mean: np.ndarray | None = None,
    running_var: np.ndarray | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> np.ndarray:
    """Ulyanov, Vedaldi & Lempitsky: Instance Normalization. arXiv:1607.08022."""
    if not use_input_stats:
        assert running_mean is not None
        assert running_var is not None
        return batch_norm(input, weight, bias, running_mean, running_var, eps)
    return _affine(_standardized(input, tuple(range(2, input.ndim)), eps), weight, bias)


def _standardized(input: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    centred = input - input.mean(axes, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(axes, keepdims=True) + np.float32(eps))


def _affine(values: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None) -> np.ndarray:
    others = [1] * (values.ndim - 2)
    values = values if weight is None else values * weight.reshape(-1, *others)
    return values if bias is None else values + bias.reshape(-1, *others)
