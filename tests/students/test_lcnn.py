"""Lookups: equal to a convolution, as cheap as the formula says, and sparser the harder they are pushed."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import students
from distill.artifact import Artifact
from distill.data.digits import Digits
from distill.export import onnx_file
from distill.models import cost
from distill.models.surgery import deployable
from distill.pipeline.build import initial_artifact
from distill.recipe.loading import load
from distill.tasks.classification import Classification
from distill.training.distiller import Distiller
from distill.training.optimizers import build_optimizer
from students.lcnn import LookupConv2d, lookup, lookup_macs

LAYERS = [
    {"size": 3, "padding": 1},
    {"size": 3, "stride": 2, "padding": 1, "bias": True},
    {"size": 5, "stride": 3},
    {"size": 1, "bias": True},
]


@torch.no_grad()
def sparse_layer(inputs: int = 6, outputs: int = 5, words: int = 4, **settings: Any) -> LookupConv2d:
    """With four of five coefficients at 0, and some just below the threshold."""
    layer = LookupConv2d(inputs, outputs, words=words, **settings)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    layer.coefficients[torch.rand(layer.coefficients.shape) < 0.8] = layer.threshold / 2
    return layer


@torch.no_grad()
@pytest.mark.parametrize("settings", LAYERS)
def test_both_ways_to_run_it_are_a_convolution_with_combined_words(settings: dict[str, Any]) -> None:
    layer, images = sparse_layer(**settings), torch.randn(2, 6, 9, 8)
    kept = layer.coefficients * (layer.coefficients.abs() > layer.threshold)
    weight = torch.einsum("nkrc,km->nmrc", kept, layer.dictionary[:, :, 0, 0])
    expected = F.conv2d(images, weight, layer.bias, layer.stride, layer.padding)
    for outputs in (layer(images), layer.look_up(images), deployable(layer)(images)):
        torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("settings", LAYERS)
def test_the_formula_counts_the_multiplications(settings: dict[str, Any]) -> None:
    layer, image = sparse_layer(inputs=2, outputs=3, words=2, **settings | {"bias": False}), torch.randn(2, 6, 5)
    outputs, multiplications = by_hand(layer, image)
    assert layer.macs(6, 5) == multiplications
    torch.testing.assert_close(layer(image[None])[0], outputs, rtol=1e-5, atol=1e-5)


def by_hand(layer: LookupConv2d, image: Tensor) -> tuple[Tensor, int]:
    """Loops over everything; a coefficient of 0 costs nothing."""
    padded = F.pad(image, [layer.padding] * 4)
    words = len(layer.dictionary)
    said = torch.zeros(words, *padded.shape[1:])
    multiplications = 0
    for word, channel, row, column in product(*(range(n) for n in (words, *padded.shape))):
        said[word, row, column] += layer.dictionary[word, channel, 0, 0] * padded[channel, row, column]
        multiplications += 1
    size = layer.coefficients.shape[3]
    height, width = ((edge - size) // layer.stride + 1 for edge in padded.shape[1:])
    outputs = torch.zeros(len(layer.coefficients), height, width)
    for n, word, row, column in layer.coefficients.abs().gt(layer.threshold).nonzero().tolist():
        for y, x in product(range(height), range(width)):
            answer = said[word, y * layer.stride + row, x * layer.stride + column]
            outputs[n, y, x] += layer.coefficients[n, word, row, column] * answer
            multiplications += 1
    return outputs, multiplications


def test_zeros_learn_nothing_and_the_others_are_pushed() -> None:
    layer, images = sparse_layer(size=3, padding=1, push=7.0), torch.randn(2, 6, 5, 5)
    zeros = layer.coefficients.abs() <= layer.threshold
    layer.eval()(images).square().sum().backward()
    unpushed, layer.coefficients.grad = layer.coefficients.grad, None
    layer.train()(images).square().sum().backward()
    pushed = layer.coefficients.grad
    assert zeros.any()
    assert pushed[zeros].count_nonzero() == 0
    assert unpushed[~zeros].count_nonzero() == (~zeros).sum()
    expected = unpushed + 7.0 * layer.threshold * layer.coefficients.detach().sign() * ~zeros
    torch.testing.assert_close(pushed, expected)


def test_the_harder_the_push_the_fewer_coefficients_remain() -> None:
    remaining = [sum(trained(push, seed) for seed in range(3)) for push in (0.0, 1.0, 3.0, 10.0)]
    assert remaining == sorted(remaining, reverse=True)
    assert remaining[-1] < 0.8 * remaining[0]


def trained(push: float, seed: int) -> int:
    """How many coefficients a layer has left that learned to be another convolution."""
    torch.manual_seed(seed)
    layer, model = LookupConv2d(4, 6, 3, 4, push=push), nn.Conv2d(4, 6, 3, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(60):
        images = torch.randn(8, 4, 5, 5)
        optimizer.zero_grad()
        (layer(images) - model(images).detach()).square().mean().backward()
        optimizer.step()
    return int(layer.sparse().count_nonzero())


def test_one_in_a_hundred_coefficients_begins_at_zero() -> None:
    layer = LookupConv2d(8, 64, 3, 64)
    part = layer.sparse().count_nonzero() / layer.coefficients.numel()
    assert part == pytest.approx(0.99, abs=0.003)


def test_a_dictionary_as_large_as_what_it_describes_is_left_out() -> None:
    assert isinstance(lookup(4, 5, 3, 5 * 9 - 1), LookupConv2d)
    dense = lookup(4, 5, 3, 5 * 9, stride=2, padding=1)
    assert type(dense) is nn.Conv2d
    assert (dense.weight.shape, dense.stride, dense.padding) == ((5, 4, 3, 3), (2, 2), (1, 1))


@torch.no_grad()
def test_a_network_costs_what_its_nonzero_coefficients_cost() -> None:
    network, images = students.lcnn_resnet20(), torch.randn(1, 3, 32, 32)
    layers = [module for module in network.modules() if isinstance(module, LookupConv2d)]
    assert len(layers) == 19
    for layer in layers:
        layer.coefficients.fill_(1.0)
    dense = cost.macs(network, images)
    assert lookup_macs(network, images) == dense
    layers[0].coefficients.zero_()
    assert lookup_macs(network, images) == dense - layers[0].coefficients.numel() * 32 * 32


@torch.no_grad()
def test_it_exports_to_onnx() -> None:
    network, images = students.lcnn_resnet20().eval(), torch.randn(2, 3, 16, 16)
    file = onnx_file.serialize(deployable(network), images)
    answer = onnx_file.answer(onnx_file.session(file, threads=1), images)
    torch.testing.assert_close(answer, network(images), rtol=1e-4, atol=1e-4)


def test_few_shots_change_the_lookups_and_no_bit_of_a_dictionary(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = {"num_classes": 10, "words": 16, "push": 1.0, "channels": 1}
    earlier = students.lcnn_resnet20(**settings).eval()
    Artifact(earlier, network={"name": "lcnn_resnet20", **settings}).save(tmp_path / "student.safetensors")
    recipe = load("digits/lcnn_few_shot", [f"student.weights={tmp_path / 'student.safetensors'}"])
    data, (stage,) = Digits(0, limit=20, batch_size=10), recipe.stages.values()
    network = initial_artifact(recipe.student, data, Classification(data.info), seed=1).model
    assert all(torch.equal(value, earlier.state_dict()[name]) for name, value in network.state_dict().items())
    common = {"optimizer": recipe.optimizer, "schedule": recipe.schedule, "example": data.calibration(8)[0]}
    module = Distiller(network, None, Classification(data.info), stage, injectable={}, **common)
    learns = build_optimizer([p for p in module.parameters() if p.requires_grad], recipe.optimizer)
    for batch in data.train_dataloader():
        learns.zero_grad()
        F.cross_entropy(network(batch.inputs), batch.labels).backward()
        learns.step()
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, earlier.get_parameter(name)) == name.endswith("dictionary"), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"words": 0}, "a dictionary has 0 words, but must have at least 1"),
        ({"push": -1.0}, "push is -1.0, but must be a number that is not below 0"),
    ],
)
def test_settings_without_a_network_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        students.lcnn_resnet20(**settings)
