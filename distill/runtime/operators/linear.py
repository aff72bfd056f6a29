"""Matrix products."""

from math import sqrt

import numpy as np

from distill.runtime.lookups import Shared
from distill.runtime.operators.activations import softmax
from distill.runtime.operators.registry import operator


@operator("linear")
def linear(input: np.ndarray, weight: np.ndarray | Shared, bias: np.ndarray | None = None) -> np.ndarray:
    """(..., inputs), weight (outputs, inputs)."""
    if isinstance(weight, np.ndarray):
        result = input @ weight.T
    else:
        rows = np.ascontiguousarray(input.reshape(-1, input.shape[-1]).T)
        result = weight.times(rows[None]).T.reshape(*input.shape[:-1], -1)
    return result if bias is None else result + bias


@operator("matmul", "bmm", "mm")
def matmul(
    input: np.ndarray,
    other: np.ndarray | None = None,
    mat2: np.ndarray | None = None,
) -> np.ndarray:
    right = other if other is not None else mat2
    assert right is not None
    return np.matmul(input, right)


@operator("scaled_dot_product_attention")
def attention(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    attn_mask: np.ndarray | None = None,
    dropout_p: float = 0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> np.ndarray:
    """Vaswani et al.: Attention Is All You Need. arXiv:1706.03762, equation 1."""
    scores = query @ key.swapaxes(-1, -2) * np.float32(scale or 1 / sqrt(query.shape[-1]))
    if is_causal:
        attn_mask = np.tri(*scores.shape[-2:], dtype=bool)
    if attn_mask is not None:
        scores = np.where(attn_mask, scores, -np.inf) if attn_mask.dtype == bool else scores + attn_mask
    return softmax(scores, -1) @ value
