"""Convolutions of any shape, and images that fit them."""

import torch
from hypothesis import strategies as st
from torch import Tensor, nn


@st.composite
def convolutions(draw: st.DrawFn, inputs: st.SearchStrategy[int], outputs: st.SearchStrategy[int]) -> nn.Conv2d:
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, stride, dilation = (draw(pair) for _ in range(3))
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    torch.manual_seed(0)
    return nn.Conv2d(draw(inputs), draw(outputs), kernel, stride, padding, dilation, bias=draw(st.booleans()))


def images_for(conv: nn.Conv2d, extra: tuple[int, int]) -> Tensor:
    """As small as the filters are, and so much larger."""
    size = (d * (k - 1) + 1 + more for d, k, more in zip(conv.dilation, conv.kernel_size, extra, strict=True))
    return torch.randn(2, conv.in_channels, *size)
