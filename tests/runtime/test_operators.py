"""Each operator computes what PyTorch's of that name computes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from distill.runtime.operators import OPERATORS

sizes = st.integers(1, 3)
pairs = st.tuples(sizes, sizes).map(list)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def same(found: np.ndarray, expected: Tensor) -> None:
    assert found.shape == tuple(expected.shape)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(groups=sizes, inputs=sizes, outputs=sizes, kernel=pairs, stride=pairs, dilation=pairs, data=st.data())
def test_convolution(
    groups: int, inputs: int, outputs: int, kernel: Any, stride: Any, dilation: Any, data: st.DataObject
) -> None:
    """Depthwise ones are those with one input and one output in a group."""
    image, weight = noise(2, groups * inputs, 9, 8), noise(groups * outputs, inputs, *kernel, seed=1)
    bias = data.draw(st.sampled_from([None, noise(groups * outputs, seed=2)]))
    padding = data.draw(st.one_of(pairs, st.just([0, 0]), st.just("same" if stride == [1, 1] else "valid")))
    expected = F.conv2d(image, weight, bias, stride, padding, dilation, groups)
    arrays = [image.numpy(), weight.numpy(), None if bias is None else bias.numpy()]
    same(OPERATORS["conv2d"](*arrays, stride=stride, padding=padding, dilation=dilation, groups=groups), expected)


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, sizes, pairs, pairs, pairs, st.tuples(st.integers(0, 2), st.integers(0, 2)))
def test_transposed_convolution(
    groups: int, inputs: int, outputs: int, kernel: Any, stride: Any, dilation: Any, padding: Any
) -> None:
    image, weight = noise(2, groups * inputs, 5, 6), noise(groups * inputs, outputs, *kernel, seed=1)
    padding = list(padding)
    more = [min(one, other) - 1 for one, other in zip(stride, dilation, strict=True)]
    expected = F.conv_transpose2d(image, weight, None, stride, padding, more, groups, dilation)
    found = OPERATORS["conv_transpose2d"](image.numpy(), weight.numpy(), None, stride, padding, more, groups, dilation)
    same(found, expected)


@settings(max_examples=60, deadline=None)
@given(kernel=pairs, stride=pairs, dilation=pairs, ceil=st.booleans(), counted=st.booleans(), data=st.data())
def test_pooling(kernel: Any, stride: Any, dilation: Any, ceil: bool, counted: bool, data: st.DataObject) -> None:
    image = noise(2, 3, data.draw(st.integers(7, 12)), data.draw(st.integers(7, 12)))
    padding = [data.draw(st.integers(0, one // 2)) for one in kernel]
    same(
        OPERATORS["max_pool2d"](image.numpy(), kernel, stride, padding, dilation, ceil),
        F.max_pool2d(image, kernel, stride, padding, dilation, ceil),
    )
    same(
        OPERATORS["avg_pool2d"](image.numpy(), kernel, stride, padding, ceil, counted),
        F.avg_pool2d(image, kernel, stride, padding, ceil, counted),
    )
    wanted = data.draw(pairs)
    same(OPERATORS["adaptive_avg_pool2d"](image.numpy(), wanted), F.adaptive_avg_pool2d(image, wanted))
    same(OPERATORS["adaptive_max_pool2d"](image.numpy(), wanted)[0], F.adaptive_max_pool2d(image, wanted))


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), wanted=st.tuples(st.integers(1, 14), st.integers(1, 14)))
def test_resizing(height: int, width: int, wanted: Any) -> None:
    image, size = noise(1, 2, height, width), list(wanted)
    same(OPERATORS["upsample_nearest2d"](image.numpy(), size), F.interpolate(image, size))
    for corners in (False, True):
        expected = F.interpolate(image, size, mode="bilinear", align_corners=corners)
        same(OPERATORS["upsample_bilinear2d"](image.numpy(), size, corners), expected)
    doubled = F.interpolate(image, scale_factor=2.0, mode="bilinear")
    same(OPERATORS["upsample_bilinear2d"](image.numpy(), None, False, [2.0, 2.0]), doubled)


@settings(max_examples=40, deadline=None)
@given(
    ends=st.lists(st.integers(-2, 3), min_size=4, max_size=4),
    mode=st.sampled_from(["constant", "reflect", "replicate"]),
)
def test_padding(ends: list[int], mode: str) -> None:
    assume(mode == "constant" or min(ends) >= 0)
    image = noise(1, 2, 6, 5)
    same(OPERATORS["pad"](image.numpy(), ends, mode), F.pad(image, ends, mode))


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", F.relu),
        ("relu6", F.relu6),
        ("sigmoid", torch.sigmoid),
        ("silu", F.silu),
        ("hardsigmoid", F.hardsigmoid),
        ("hardswish", F.hardswish),
        ("gelu", F.gelu),
        ("softplus", F.softplus),
        ("elu", F.elu),
        ("leaky_relu", F.leaky_relu),
        ("tanh", torch.tanh),
    ],
)
def test_activations(name: str, function: Callable[[Tensor], Tensor]) -> None:
    values = torch.cat([torch.linspace(-100, 100, 401), noise(100)])
    found = OPERATORS[name](values.numpy())
    assert found.dtype == np.float32
    same(found, function(values))


def test_normalization() -> None:
    image, weight, bias = noise(2, 6, 4, 5), noise(6, seed=1), noise(6, seed=2)
    arrays = [weight.numpy(), bias.numpy()]
    same(OPERATORS["group_norm"](image.numpy(), 3, *arrays), F.group_norm(image, 3, weight, bias))
    same(OPERATORS["instance_norm"](image.numpy(), *arrays), F.instance_norm(image, weight=weight, bias=bias))
    last = image.transpose(1, 3).contiguous()
    same(OPERATORS["layer_norm"](last.numpy(), [6], *arrays), F.layer_norm(last, [6], weight, bias))
    mean, var = noise(6, seed=3), noise(6, seed=4).square()
    found = OPERATORS["batch_norm"](image.numpy(), *arrays, mean.numpy(), var.numpy(), 1e-3)
    same(found, F.batch_norm(image, mean, var, weight, bias, eps=1e-3))


def test_attention() -> None:
    query, key, value = (noise(2, 3, 7, 4, seed=seed) for seed in range(3))
    arrays = [tensor.numpy() for tensor in (query, key, value)]
    for causal in (False, True):
        expected = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
        same(OPERATORS["scaled_dot_product_attention"](*arrays, is_causal=causal), expected)


@pytest.mark.parametrize("dim", [1, -2])
def test_gated_values(dim: int) -> None:
    image = noise(2, 6, 4, 3)
    same(OPERATORS["glu"](image.numpy(), dim), F.glu(image, dim))


def test_moving_values() -> None:
    image = noise(2, 12, 4, 3)
    array = image.numpy()
    same(OPERATORS["channel_shuffle"](array, 3), F.channel_shuffle(image, 3))
    same(OPERATORS["pixel_shuffle"](array, 2), F.pixel_shuffle(image, 2))
    same(OPERATORS["pixel_unshuffle"](image[:, :, :, :2].numpy(), 2), F.pixel_unshuffle(image[:, :, :, :2], 2))
    same(OPERATORS["roll"](array, [1, -1], [2, 3]), image.roll((1, -1), (2, 3)))
    same(OPERATORS["slice"](array, 1, 2, 9223372036854775807, 3), image[:, 2::3])
    for found, expected in zip(OPERATORS["chunk"](array, 5, 1), image.chunk(5, 1), strict=True):
        same(found, expected)
    for found, expected in zip(OPERATORS["split"](array, 5, 1), image.split(5, 1), strict=True):
        same(found, expected)
