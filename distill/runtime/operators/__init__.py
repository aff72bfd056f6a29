"""What a graph may compute, in NumPy: functions with the names and arguments of PyTorch's ATen operators.

Arrays are (batch, channels, height, width), float32. An operator never changes its arguments, but may return a view.
"""

from distill.runtime.operators import (  # noqa: F401  each registers its functions
    activations,
    arithmetic,
    convolution,
    linear,
    normalization,
    pooling,
    resizing,
    shapes,
)
from distill.runtime.operators.registry import OPERATORS, operator

__all__ = ["OPERATORS", "operator"]
