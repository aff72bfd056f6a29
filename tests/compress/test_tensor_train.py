"""Tensor trains: within their error bound, exact on trains, and as cheap to run as the middle rank says."""

import logging
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from distill.artifact import Artifact, deployable
from distill.compress._trains import Shape, Trains, contract, decompose
from distill.compress.tensor_train import TensorTrain, tensor_train
from distill.errors import RecipeError
from distill.measure import macs


def anything(model: nn.Module) -> float:
    return 1.0


def dense(cores: list[torch.Tensor]) -> np.ndarray:
    """A train multiplied out one entry at a time: the definition, Oseledets equation 1.2."""
    cores = [core.detach().double().numpy() for core in cores]
    modes = [core.shape[1] for core in cores]
    values = np.empty(modes)
    for index in product(*map(range, modes)):
        row = np.ones((1, 1))
        for core, position in zip(cores, index, strict=True):
            row = row @ core[:, position]
        values[index] = row[0, 0]
    return values


def train_matrix(inputs: tuple[int, ...], outputs: tuple[int, ...], rank: int, seed: int = 0) -> torch.Tensor:
    """A matrix (inputs, outputs) that is a train of the given rank at every bond."""
    generator = torch.Generator().manual_seed(seed)
    modes = inputs + outputs
    ranks = [1, *[rank] * (len(modes) - 1), 1]
    cores = [torch.randn(ranks[k], modes[k], ranks[k + 1], generator=generator) for k in range(len(modes))]
    return torch.from_numpy(dense(cores)).float().reshape(int(np.prod(inputs)), -1)


@settings(max_examples=60, deadline=None)
@given(inputs=st.integers(1, 24), outputs=st.integers(1, 24), error=st.floats(0.001, 0.99), seed=st.integers(0, 2**16))
def test_the_error_bound_holds(inputs: int, outputs: int, error: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    decay = torch.logspace(0, -seed % 5, outputs)
    matrix = torch.randn(inputs, outputs, generator=generator) * decay
    options = Trains(matrix)
    for modes in options.modes:
        shape = options._within(error, *modes)
        first, second = contract(decompose(matrix, shape), len(shape.inputs))
        assert (second @ first - matrix.T).norm() <= error * matrix.norm() * (1 + 1e-6)
    assert options.smallest(error).size == min(options._within(error, *modes).size for modes in options.modes)


def test_contraction_is_the_definition() -> None:
    matrix = torch.randn(12, 20)
    shape = Shape((3, 4), (4, 5), (2, 6, 3))
    cores = decompose(matrix, shape)
    first, second = contract(cores, 2)
    assert [tuple(core.shape) for core in cores] == [(1, 3, 2), (2, 4, 6), (6, 4, 3), (3, 5, 1)]
    assert shape.size == sum(core.numel() for core in cores)
    assert (first.shape, second.shape) == ((6, 12), (20, 6))
    np.testing.assert_allclose((second @ first).T, dense(cores).reshape(12, 20), atol=1e-10)


@pytest.mark.parametrize("shape", [Shape((12,), (20,), (12,)), Shape((3, 4), (4, 5), (3, 12, 5))])
def test_full_rank_is_the_identity(shape: Shape) -> None:
    matrix = torch.randn(12, 20)
    first, second = contract(decompose(matrix, shape), len(shape.inputs))
    torch.testing.assert_close((second @ first).T.float(), matrix, rtol=1e-6, atol=1e-6)


def test_a_train_is_found_again() -> None:
    matrix = train_matrix((8, 8), (8, 8), rank=3)
    shape = Trains(matrix).smallest(1e-3)
    assert shape == Shape((8, 8), (8, 8), (3, 3, 3))
    assert shape.size == 8 * 3 + 3 * 8 * 3 + 3 * 8 * 3 + 3 * 8


def test_a_matrix_without_such_structure_is_cut_once() -> None:
    matrix = torch.randn(48, 5) @ torch.randn(5, 53)  # 53 is prime
    shape = Trains(matrix).smallest(1e-3)
    assert shape.ranks[-1] == 5
    assert shape.size <= 5 * (48 + 53)


def layer_of(matrix: torch.Tensor, kind: str) -> nn.Conv2d | nn.Linear:
    inputs, outputs = matrix.shape
    layer = nn.Linear(inputs, outputs) if kind == "linear" else nn.Conv2d(inputs, outputs, 1, stride=2, padding=1)
    layer.weight.data = matrix.T.reshape(layer.weight.shape).contiguous()
    return layer


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_layer_that_is_a_train_computes_the_same(kind: str) -> None:
    layer = layer_of(train_matrix((6, 8), (8, 10), rank=2), kind)
    inputs = torch.randn(3, 48) if kind == "linear" else torch.randn(2, 48, 7, 6)
    done = tensor_train(Artifact(nn.Sequential(layer)), anything, max_error=0.001)
    assert isinstance(done.model[0], TensorTrain)
    torch.testing.assert_close(done.model(inputs), layer(inputs), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(deployable(done.model)(inputs), done.model(inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_it_runs_as_two_plain_layers_of_the_middle_rank(kind: str) -> None:
    layer = layer_of(train_matrix((6, 8), (8, 10), rank=4), kind)
    inputs, positions = (torch.randn(1, 48), 1) if kind == "linear" else (torch.randn(1, 48, 6, 4), 4 * 3)
    done = tensor_train(Artifact(nn.Sequential(layer)), anything, max_error=0.001)
    first, second = deployable(done.model)[0]
    assert type(first) is type(second) is type(layer)
    assert macs(deployable(done.model), inputs) == positions * 4 * (48 + 80)
    assert sum(p.numel() for p in done.model.parameters()) == 4 * 6 + 4 * 8 * 4 + 4 * 8 * 4 + 4 * 10 + 80


def test_it_runs_dense_where_that_is_less_work() -> None:
    layer = TensorTrain(nn.Linear(16, 16), Shape((4, 4), (4, 4), (1, 15, 1)))
    nn.init.normal_(layer.core0)
    for name in ("core1", "core2", "core3"):
        nn.init.normal_(getattr(layer, name))
    assert isinstance(layer.deploy(), nn.Linear)
    rows = torch.randn(2, 16)
    torch.testing.assert_close(layer.deploy()(rows), layer(rows))


def test_gradients_reach_every_core() -> None:
    done = tensor_train(Artifact(nn.Sequential(layer_of(train_matrix((4, 6), (4, 6), 2), "linear"))), anything)
    done.model(torch.randn(5, 24)).square().sum().backward()
    assert all(p.grad is not None and p.grad.norm() > 0 for p in done.model.parameters())


def test_singular_values_are_shared_by_both_sides_of_a_bond() -> None:
    first, second = decompose(torch.randn(20, 30), Shape((20,), (30,), (7,)))
    torch.testing.assert_close(first.flatten(0, 1).norm(dim=0), second.flatten(1).norm(dim=1))


def test_a_weight_of_zeros() -> None:
    layer = nn.Linear(16, 16)
    nn.init.zeros_(layer.weight)
    done = tensor_train(Artifact(nn.Sequential(layer)), anything)
    assert torch.equal(done.model(torch.randn(2, 16)), layer.bias.expand(2, 16))


def noisy(model: nn.Module) -> float:
    """Falls with the distance from the network that was trained: a stand-in for accuracy."""
    with torch.no_grad():
        return 1.0 - float((deployable(model)(torch.eye(32)) - target()).norm() / target().norm())


def target() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(32, 32, generator=generator) * torch.logspace(0, -2, 32)


def test_max_drop_finds_the_largest_error_that_meets_it() -> None:
    linear = nn.Linear(32, 32, bias=False)
    linear.weight.data = target().T.contiguous()
    calls = []

    def counted(model: nn.Module) -> float:
        calls.append(noisy(model))
        return calls[-1]

    done = tensor_train(Artifact(nn.Sequential(linear)), counted, max_error=0.8, max_drop=0.2)
    assert 0.1 < 1.0 - noisy(done.model) <= 0.2
    assert len(calls) <= 7
    assert done.nbytes() < Artifact(nn.Sequential(linear)).nbytes()


def test_max_drop_takes_the_whole_bound_if_it_may() -> None:
    artifact = Artifact(nn.Sequential(layer_of(train_matrix((4, 6), (4, 6), 2), "linear")))
    searched = tensor_train(artifact, anything, max_error=0.3, max_drop=0.0)
    assert searched.to_bytes() == tensor_train(artifact, anything, max_error=0.3).to_bytes()


def test_a_drop_that_cannot_be_met_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    artifact = Artifact(nn.Sequential(nn.Linear(32, 32)))
    values = iter([1.0] + [0.5] * 6)
    with caplog.at_level(logging.INFO, logger="distill"):
        done = tensor_train(artifact, lambda model: next(values), max_error=0.9, max_drop=0.01)
    assert done.to_bytes() == artifact.to_bytes()
    assert caplog.messages[-1].endswith("left as they are: 1 (would get no smaller)")


def test_layers_it_cannot_replace_are_said_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1, padding=1, padding_mode="reflect"))
    with caplog.at_level(logging.INFO, logger="distill"):
        tensor_train(Artifact(model), anything)
    left = "left as they are: 2 (not 1 x 1), 1 (reflect padding)"
    assert caplog.messages[-1] == f"tensor_train: 0 layers, 0 -> 0 parameters; {left}"


@pytest.mark.parametrize("setting", [{"max_error": 0.0}, {"max_error": 1.0}, {"max_drop": -0.1}, {"max_drop": np.nan}])
def test_settings_out_of_range(setting: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match="0 < max_error < 1, max_drop >= 0"):
        tensor_train(Artifact(nn.Linear(4, 4)), anything, **setting)
