"""Filters that share weights: each against its plain convolution, and how many there are."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import students
from distill.export import onnx_file
from distill.models import cost
from students.versatile import VersatileConv2d

LAYERS = [
    {"size": 3, "padding": 1},
    {"size": 5, "padding": 2, "stride": 2},
    {"size": 7, "padding": 0},
    {"size": 3, "padding": 1, "delta": 2},
    {"size": 5, "padding": 1, "delta": 2, "step": 2, "stride": 2},
    {"size": 1, "delta": 3, "step": 3, "bias": False},
]


def plain(layer: VersatileConv2d) -> Tensor:
    """The weight of the equivalent convolution: (outputs, inputs, size, size)."""
    depth = layer.weight.shape[1]
    filters = []
    for crop, place, count in layer.parts():
        end = layer.size - crop
        filters.append(torch.zeros(count, layer.inputs, layer.size, layer.size))
        filters[-1][:, place : place + depth, crop:end, crop:end] = layer.weight[:count, :, crop:end, crop:end].detach()
    return torch.cat(filters)


@pytest.mark.parametrize("settings", LAYERS)
@pytest.mark.parametrize("outputs", [12, 13])
def test_every_filter_is_a_plain_one_cut_to_size(settings: dict[str, Any], outputs: int) -> None:
    layer = VersatileConv2d(6, outputs, **settings)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    images = torch.randn(2, 6, 9, 8)
    expected = F.conv2d(images, plain(layer), layer.bias, layer.stride, layer.padding)
    torch.testing.assert_close(layer(images), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("settings", LAYERS)
def test_a_weight_learns_from_all_filters_that_contain_it(settings: dict[str, Any]) -> None:
    layer = VersatileConv2d(6, 13, **settings)
    images, target = torch.randn(2, 6, 9, 8), torch.randn(13, 1, 1)
    weight = plain(layer).requires_grad_()
    (F.conv2d(images, weight, layer.bias, layer.stride, layer.padding) * target).sum().backward()
    (layer(images) * target).sum().backward()
    expected = torch.zeros_like(layer.weight)
    depth = layer.weight.shape[1]
    gradients = weight.grad.split([count for _, _, count in layer.parts()])
    for (crop, place, count), gradient in zip(layer.parts(), gradients, strict=True):
        end = layer.size - crop
        expected[:count, :, crop:end, crop:end] += gradient[:, place : place + depth, crop:end, crop:end]
    torch.testing.assert_close(layer.weight.grad, expected, rtol=1e-4, atol=1e-4)


@given(outputs=st.integers(1, 40), size=st.integers(1, 7), step=st.integers(1, 3), places=st.integers(1, 3))
def test_there_are_as_many_outputs_as_asked_for(outputs: int, size: int, step: int, places: int) -> None:
    with torch.device("meta"):
        layer = VersatileConv2d(8, outputs, size, padding=size // 2, delta=(places - 1) * step, step=step)
        shape = nn.Conv2d(8, outputs, size, padding=size // 2)(torch.empty(1, 8, 9, 9)).shape
        assert layer(torch.empty(1, 8, 9, 9)).shape == shape
    uses = -(-size // 2) * places
    assert len(layer.weight) == -(-outputs // uses)
    assert layer.parts()[0] == (0, 0, len(layer.weight)), "every primary is used whole"


def test_activations_keep_their_size() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        outputs = VersatileConv2d(128, 128, 3, padding=1)(torch.randn(1, 128, 16, 16))
    assert 0.7 < outputs[..., 1:-1, 1:-1].var() / 2 < 1.4


@pytest.mark.parametrize(("stem", "count"), [(False, 11_004_968), (True, 10_996_736)])
def test_the_authors_code_stores_more_than_it_reads(stem: bool, count: int) -> None:
    with torch.device("meta"):
        network = students.versatile_resnet50(delta=1, versatile_stem=stem)
    layers = [module for module in network.modules() if isinstance(module, VersatileConv2d)]
    unread = sum(len(layer.weight) * layer.size**2 for layer in layers)
    assert cost.params(network) + unread == count


def test_their_sizes_without_batch_normalisation_are_the_published_ones() -> None:
    with torch.device("meta"):
        first, second = students.versatile_resnet50(versatile_stem=True), students.versatile_resnet50(delta=1)
    for network, published in ((first, 75.6), (second, 41.7)):
        norms = sum(cost.params(module) for module in network.modules() if isinstance(module, nn.BatchNorm2d))
        assert 4 * (cost.params(network) - norms) / 2**20 == pytest.approx(published, abs=0.1)


def test_vgg_16_keeps_half_of_its_convolutions_and_a_quarter_of_its_largest_layer() -> None:
    with torch.device("meta"):
        vgg = torchvision.models.vgg16()
        network = students.versatile_vgg16()
    convolutions = sum(module.weight.numel() for module in vgg.features if isinstance(module, nn.Conv2d))
    saved = convolutions / 2 + vgg.classifier[0].weight.numel() * 3 / 4
    assert cost.params(network) == cost.params(vgg) - saved


def test_a_grey_first_layer_shares_in_space_only() -> None:
    with torch.device("meta"):
        network = students.versatile_vgg16(delta=1, channels=1, small_images=True)
        assert network.features[0].weight.shape == (32, 1, 3, 3)
        assert network.features[2].weight.shape == (16, 63, 3, 3)


@torch.no_grad()
def test_it_exports_to_onnx_with_the_shared_weights_stored_once() -> None:
    first = VersatileConv2d(3, 64, 5, padding=2, stride=2)
    network = nn.Sequential(first, nn.ReLU(), VersatileConv2d(64, 256, 3, delta=2)).eval()
    images = torch.randn(2, 3, 16, 16)
    file = onnx_file.serialize(network, images)
    assert len(file) < 1.5 * 4 * cost.params(network)
    answer = onnx_file.answer(onnx_file.session(file, threads=1), images)
    torch.testing.assert_close(answer, network(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"delta": 16}, "delta is 16, but must be one of 0 to 15: the layer has 16 inputs"),
        ({"delta": -1}, "delta is -1, but must be one of 0 to 15"),
        ({"delta": 3, "step": 2}, "step is 2, but must be a divisor of delta, which is 3"),
        ({"step": 0}, "step is 0, but must be a divisor of delta"),
    ],
)
def test_settings_without_a_network_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        students.versatile_resnet20(**settings)
