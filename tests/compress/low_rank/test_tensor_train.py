"""Tensor trains: within their error bound, exact on trains, and as cheap to run as the middle rank says."""

import logging
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from distill.artifact import Artifact
from distill.compress.low_rank._trains import Shape, Trains, contract, decompose, dense
from distill.compress.low_rank.tensor_train import TensorTrain, tensor_train
from distill.models.cost import macs
from distill.models.surgery import deployable
from tests.compress import nets


def trained(model: nn.Module, shape: tuple[int, ...], **settings: object) -> Artifact:
    """By the error of the weight, whatever the images are."""
    settings = {"weighting": "none", **settings}
    return tensor_train(Artifact(model.eval()), nets.anything, nets.calibration(*shape), **settings)


def by_definition(cores: list[torch.Tensor]) -> np.ndarray:
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
    return torch.from_numpy(by_definition(cores)).float().reshape(int(np.prod(inputs)), -1)


@settings(max_examples=60, deadline=None)
@given(
    inputs=st.integers(1, 24),
    kernel=st.sampled_from([1, 4, 9]),
    outputs=st.integers(1, 24),
    error=st.floats(0.001, 0.99),
    seed=st.integers(0, 2**16),
)
def test_the_error_bound_holds(inputs: int, kernel: int, outputs: int, error: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    decay = torch.logspace(0, -seed % 5, outputs)
    weight = torch.randn(inputs, kernel, outputs, generator=generator) * decay
    options = Trains(weight)
    for modes, fast in product(options.modes, (False, True)):
        shape = options.within(error, *modes, fast=fast)
        approximation = dense(contract(decompose(weight, shape), shape))
        assert (approximation - weight).norm() <= error * weight.norm() * (1 + 1e-6)
    assert options.smallest(error).size == min(options.within(error, *modes).size for modes in options.modes)


@pytest.mark.parametrize("kernel", [1, 9])
def test_contraction_is_the_definition(kernel: int) -> None:
    weight = torch.randn(12, kernel, 20)
    shape = Shape((3, 4), kernel, (4, 5), (2, 6, 3) if kernel == 1 else (2, 6, 7, 3))
    cores = decompose(weight, shape)
    assert [core.shape[1] for core in cores] == list(shape.modes)
    assert shape.size == sum(core.numel() for core in cores)
    assert [layer.shape[0] for layer in contract(cores, shape)] == [6, 20] if kernel == 1 else [6, 6, 20]
    expected = by_definition(cores).reshape(12, kernel, 20)
    np.testing.assert_allclose(dense(contract(cores, shape)), expected, atol=1e-10)


@pytest.mark.parametrize("ranks", [(2, 6, 3), (3, 12, 5)])
def test_it_is_tensorlys_decomposition(ranks: tuple[int, ...]) -> None:
    tensorly = pytest.importorskip("tensorly")
    weight = torch.randn(12, 1, 20, generator=torch.Generator().manual_seed(1)).double()
    shape = Shape((3, 4), 1, (4, 5), ranks)
    theirs = tensorly.decomposition.tensor_train(weight.reshape(3, 4, 4, 5).numpy(), rank=(1, *ranks, 1))
    ours = dense(contract(decompose(weight, shape), shape))
    np.testing.assert_allclose(ours.reshape(3, 4, 4, 5), theirs.to_tensor(), atol=1e-9)


@pytest.mark.parametrize("shape", [Shape((12,), 1, (20,), (12,)), Shape((3, 4), 1, (4, 5), (3, 12, 5))])
def test_full_rank_is_the_identity(shape: Shape) -> None:
    weight = torch.randn(12, 1, 20)
    torch.testing.assert_close(dense(contract(decompose(weight, shape), shape)).float(), weight, rtol=1e-6, atol=1e-6)


def test_a_train_is_found_again() -> None:
    matrix = train_matrix((8, 8), (8, 8), rank=3)
    shape = Trains(matrix[:, None]).smallest(1e-3)
    assert shape == Shape((8, 8), 1, (8, 8), (3, 3, 3))
    assert shape.size == 8 * 3 + 3 * 8 * 3 + 3 * 8 * 3 + 3 * 8


def test_a_matrix_without_such_structure_is_cut_once() -> None:
    matrix = torch.randn(48, 5) @ torch.randn(5, 53)  # 53 is prime
    shape = Trains(matrix[:, None]).smallest(1e-3)
    assert shape.ranks[-1] == 5
    assert shape.size <= 5 * (48 + 53)


def test_a_fast_train_spends_its_error_where_layers_are_cut() -> None:
    """The fewest values at a bound cut the train everywhere; a layer runs as its bond in the middle says."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(64, 64, generator=generator) * torch.logspace(0, -2, 64)
    trains = Trains(matrix[:, None])
    small, fast = (trains.within(0.3, (8, 8), (8, 8), fast=fast) for fast in (False, True))
    plain = trains.within(0.3, (64,), (64,))
    assert fast.widths[0] % 8 == 0
    assert fast.widths[0] <= small.widths[0] + 7
    assert plain.widths[0] <= fast.widths[0] <= plain.widths[0] + 8


def layer_of(matrix: torch.Tensor, kind: str) -> nn.Conv2d | nn.Linear:
    inputs, outputs = matrix.shape
    layer = nn.Linear(inputs, outputs) if kind == "linear" else nn.Conv2d(inputs, outputs, 1, stride=2, padding=1)
    layer.weight.data = matrix.T.reshape(layer.weight.shape).contiguous()
    return layer


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_layer_that_is_a_train_computes_the_same(kind: str) -> None:
    layer = layer_of(train_matrix((6, 8), (8, 10), rank=2), kind)
    inputs = torch.randn(3, 48) if kind == "linear" else torch.randn(2, 48, 7, 6)
    done = trained(nn.Sequential(layer), inputs.shape[1:], max_error=0.05)
    assert isinstance(done.model[0], TensorTrain)
    torch.testing.assert_close(done.model(inputs), layer(inputs), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(deployable(done.model)(inputs), done.model(inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_it_runs_as_two_plain_layers_of_the_middle_rank(kind: str) -> None:
    layer = layer_of(train_matrix((6, 8), (8, 10), rank=4), kind)
    inputs, positions = (torch.randn(1, 48), 1) if kind == "linear" else (torch.randn(1, 48, 6, 4), 4 * 3)
    done = trained(nn.Sequential(layer), inputs.shape[1:], max_error=0.05)
    first, second = deployable(done.model)[0]
    assert type(first) is type(second) is type(layer)
    assert macs(deployable(done.model), inputs) == positions * 4 * (48 + 80)
    assert sum(p.numel() for p in done.model.parameters()) == 4 * 6 + 4 * 8 * 4 + 4 * 8 * 4 + 4 * 10 + 80


@pytest.mark.parametrize(
    "geometry", [{}, {"stride": 2, "padding": 1}, {"dilation": (2, 1), "padding": "same"}], ids=str
)
def test_a_kernel_stands_between_two_pointwise_layers(geometry: dict[str, object]) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(24, 30, (3, 5), **geometry)
    inner, before, after = torch.randn(4, 3, 3, 5), torch.randn(3, 24), torch.randn(30, 4)
    conv.weight.data = torch.einsum("bahw,ai,ob->oihw", inner, before, after)
    images = torch.randn(2, 24, 11, 12)
    done = trained(nn.Sequential(conv), (24, 11, 12), max_error=0.05)
    torch.testing.assert_close(done.model(images), conv(images), rtol=1e-4, atol=1e-3)
    plain = deployable(done.model)
    assert [tuple(layer.weight.shape) for layer in plain[0]] == [(3, 24, 1, 1), (4, 3, 3, 5), (30, 4, 1, 1)]
    torch.testing.assert_close(plain(images), done.model(images), rtol=1e-5, atol=1e-4)


def test_it_runs_dense_where_that_is_less_work() -> None:
    spec = {"inputs": [4, 4], "kernel": 1, "outputs": [4, 4], "ranks": [1, 15, 1]}
    factors, whole = (
        TensorTrain(nn.Linear(16, 16), {**spec, "dense": False}),
        TensorTrain(nn.Linear(16, 16), {**spec, "dense": True}),
    )
    for core in factors.parameters():
        nn.init.normal_(core)
    whole.load_state_dict(factors.state_dict())
    assert isinstance(whole.deploy(), nn.Linear)
    rows = torch.randn(2, 16)
    torch.testing.assert_close(whole.deploy()(rows), factors(rows), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(whole(rows), factors(rows), rtol=1e-4, atol=1e-4)


def test_which_of_both_it_runs_follows_from_their_work() -> None:
    """Bonds of rank 20 and 40 around it: too wide to be fewer multiplications, narrow enough to be fewer values."""
    layer = layer_of(train_matrix((8, 8), (8, 8), rank=40), "linear")
    done = trained(nn.Sequential(layer), (64,), max_error=0.2)
    (spec,) = (plan.layers["0"] for plan in done.plans)
    assert spec["dense"] == (spec["ranks"][len(spec["inputs"]) - 1] * 128 >= 64 * 64)


def test_gradients_reach_every_core() -> None:
    layer = layer_of(train_matrix((4, 6), (4, 6), 2), "linear")
    done = trained(nn.Sequential(layer), (24,), max_error=0.05)
    done.model(torch.randn(5, 24)).square().sum().backward()
    assert all(p.grad is not None and p.grad.norm() > 0 for p in done.model.parameters())


def test_singular_values_are_shared_by_both_sides_of_a_bond() -> None:
    first, second = decompose(torch.randn(20, 1, 30), Shape((20,), 1, (30,), (7,)))
    torch.testing.assert_close(first.flatten(0, 1).norm(dim=0), second.flatten(1).norm(dim=1))


def test_a_weight_of_zeros() -> None:
    layer = nn.Linear(16, 16)
    nn.init.zeros_(layer.weight)
    done = trained(nn.Sequential(layer), (16,), max_error=0.5)
    assert torch.equal(done.model(torch.randn(2, 16)), layer.bias.expand(2, 16))


def test_layers_it_cannot_replace_are_said_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 8, 1, padding=1, padding_mode="reflect"))
    with caplog.at_level(logging.INFO, logger="distill"):
        trained(model, (8, 9, 9), max_error=0.5)
    left = "left as they are: 1 (in groups), 1 (reflect padding)"
    assert caplog.messages[-1] == f"tensor_train: 0 layers, 0 -> 0 parameters; {left}"
