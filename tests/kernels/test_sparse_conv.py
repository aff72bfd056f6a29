"""Direct sparse convolution computes what the dense one does, with as many multiplications as there are non-zeros."""

import copy
from math import prod

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from distill.kernels import SparseConv2d
from distill.models.surgery import deployable
from tests.kernels.shapes import convolutions, images_for


def thinned(conv: nn.Conv2d, density: float, seed: int = 0) -> nn.Conv2d:
    """With that part of its weights, and without any in its second filter."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        conv.weight *= torch.rand(conv.weight.shape, generator=random) < density
        conv.weight[1] = 0
    return conv


def differ(conv: nn.Conv2d, images: torch.Tensor) -> float:
    with torch.no_grad():
        return float((SparseConv2d.from_dense(conv)(images) - conv(images)).abs().max())


@pytest.mark.parametrize("density", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_it_is_the_dense_convolution(
    stride: int, padding: int, dilation: int, groups: int, density: float, way: str
) -> None:
    torch.manual_seed(0)
    conv = thinned(nn.Conv2d(8, 12, 3, stride, padding, dilation, groups), density)
    assert differ(conv, torch.randn(2, 8, 11, 14)) <= 1e-5


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conv=convolutions(st.just(3), st.just(5)), extra=st.tuples(st.integers(0, 39), st.integers(0, 39)))
def test_it_is_the_dense_convolution_of_any_shape(conv: nn.Conv2d, extra: tuple[int, int], way: str) -> None:
    assert differ(thinned(conv, 0.4), images_for(conv, extra)) <= 1e-5


def test_every_non_zero_is_multiplied_once_for_every_output_position(way: str) -> None:
    conv = thinned(nn.Conv2d(6, 4, 3, stride=2, bias=False), 0.3)
    conv.weight.data = (conv.weight != 0).float()
    sparse = SparseConv2d.from_dense(conv)
    with torch.no_grad():
        output = sparse(torch.ones(1, 6, 9, 12))  # each multiplication adds one
    count = int((conv.weight != 0).sum())
    assert 0 < count < conv.weight.numel()
    assert output.sum() == sparse.macs(9, 12) == count * prod(output.shape[2:])


def test_one_layer_takes_images_of_several_sizes_and_new_weights(way: str) -> None:
    torch.manual_seed(0)
    conv = thinned(nn.Conv2d(3, 4, 3, padding=1), 0.5)
    sparse = SparseConv2d.from_dense(conv)
    mirrored = nn.Conv2d(3, 4, 3, padding=1)
    mirrored.load_state_dict({"weight": conv.weight.flip(3), "bias": conv.bias})
    with torch.no_grad():
        for images in (torch.randn(1, 3, 8, 8), torch.randn(3, 3, 5, 9), torch.randn(1, 3, 8, 8).mT):
            torch.testing.assert_close(sparse(images), conv(images), rtol=0, atol=1e-5)
        sparse.load_state_dict(SparseConv2d.from_dense(mirrored).state_dict())
        torch.testing.assert_close(sparse(images), mirrored(images), rtol=0, atol=1e-5)


def test_threads_share_the_work(way: str) -> None:
    conv, images = thinned(nn.Conv2d(4, 9, 3, padding=1), 0.5), torch.randn(3, 4, 20, 20)
    torch.set_num_threads(2)
    try:
        assert differ(conv, images) <= 1e-5
    finally:
        torch.set_num_threads(1)


def test_gradients_pass_to_the_images(way: str) -> None:
    torch.manual_seed(0)
    conv = thinned(nn.Conv2d(3, 4, 3), 0.5)
    ours, theirs = (torch.ones(1, 3, 6, 6, requires_grad=True) for _ in range(2))
    SparseConv2d.from_dense(conv)(ours).square().sum().backward()
    conv(theirs).square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_it_becomes_dense_again_for_other_runtimes(way: str) -> None:
    torch.manual_seed(0)
    conv = thinned(nn.Conv2d(3, 4, 3, padding="same"), 0.5)
    network, images = nn.Sequential(SparseConv2d.from_dense(conv), nn.ReLU()).eval(), torch.randn(2, 3, 6, 6)
    dense = deployable(network)
    assert type(dense[0]) is nn.Conv2d
    assert torch.equal(dense[0].weight, conv.weight)
    assert torch.equal(dense[0].bias, conv.bias)
    with torch.no_grad():
        torch.testing.assert_close(dense(images), network(images), rtol=0, atol=1e-5)
        assert torch.equal(copy.deepcopy(network)(images), network(images))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"padding_mode": "reflect"}, "padding_mode is reflect, but must be zeros"),
        ({"kernel_size": 2, "padding": "same"}, "padding is same, which differs between sides"),
    ],
)
def test_other_padding_is_refused(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        SparseConv2d.from_dense(nn.Conv2d(2, 2, **{"kernel_size": 3, **settings}))


@pytest.mark.parametrize(
    ("shape", "complaint"), [((1, 3, 6, 6), "to have 2 channels, but got 3"), ((1, 2, 2, 6), "Kernel size can't be")]
)
def test_images_that_do_not_fit_are_refused_as_by_a_dense_layer(
    shape: tuple[int, ...], complaint: str, way: str
) -> None:
    with pytest.raises(RuntimeError, match=complaint), torch.no_grad():
        SparseConv2d.from_dense(nn.Conv2d(2, 2, 3))(torch.zeros(shape))
