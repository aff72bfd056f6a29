"""The performance model says what its equations say, and decides which layers of a network are sparse."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from distill.artifact import Artifact
from distill.compress.pruning.prune import prune
from distill.kernels import Geometry, Machine, SparseConv2d, measured, sparse
from distill.kernels.performance import Work, works

CAFFENET = {
    "conv2": (Geometry(96, 256, (5, 5), padding=(2, 2), groups=2), 27, 447.898e6),
    "conv3": (Geometry(256, 384, (3, 3), padding=(1, 1)), 13, 299.041e6),
    "conv4": (Geometry(384, 384, (3, 3), padding=(1, 1), groups=2), 13, 224.281e6),
    "conv5": (Geometry(384, 256, (3, 3), padding=(1, 1), groups=2), 13, 149.520e6),
}
"""Layer, size of its input, and the operations for one image that the authors' code prints."""
XEON = Machine(flops=1.3e12, bandwidth=60e9, alpha=3)


@pytest.mark.parametrize("name", CAFFENET)
def test_operations_are_those_that_the_authors_print(name: str) -> None:
    geometry, size, printed = CAFFENET[name]
    counter = FlopCounterMode(display=False)
    with counter, torch.device("meta"):
        geometry.dense(bias=False)(torch.empty(1, geometry.in_channels, size, size))
    operations = Work.of(geometry, size, size).operations
    assert operations == counter.get_total_flops() == pytest.approx(printed, abs=500)


def test_the_useful_range_is_the_papers() -> None:
    geometry, size, _ = CAFFENET["conv5"]
    least, most = XEON.useful(Work.of(geometry, size, size))
    assert most == pytest.approx(1 / 3)
    assert least == pytest.approx(0.02, abs=0.01)


WORKS = st.builds(Work, *[st.integers(1, 10**9)] * 3)
MACHINES = st.builds(Machine, *[st.floats(1e8, 1e12)] * 2, st.floats(1.1, 5), st.floats(1, 3))


@given(WORKS, MACHINES, st.floats(1e-4, 1))
def test_the_range_is_where_sparse_is_faster_and_zeros_still_help(work: Work, machine: Machine, density: float) -> None:
    least, most = machine.useful(work)
    assert 0 <= least <= most < 1
    time = machine.sparse_seconds(work, density)
    if not most * 0.999 < density < most * 1.001:
        assert (time < machine.dense_seconds(work)) == (density < most)
    if least * 1.001 < density < most:
        assert time == machine.alpha * density * machine.dense_seconds(work)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3),
    ).eval()


def test_work_is_found_for_every_layer_that_can_be_sparse() -> None:
    found = works(network(), torch.randn(2, 3, 12, 10))
    assert list(found) == ["0", "2", "4"]
    assert found["2"] == Work(2 * 32 * 16 * 9 * 6 * 5, 4 * (16 * 12 * 10 + 32 * 6 * 5), 4 * 32 * 16 * 9)


def test_a_pruned_network_runs_sparse_where_the_model_says_so() -> None:
    images = torch.randn(2, 3, 12, 10)
    pruned = prune(Artifact(network()), sparsity=0.9, saliency="magnitude", layers=["2"]).model
    before = copy.deepcopy(pruned)
    fast = sparse(pruned, images, Machine(flops=1e9, bandwidth=1e12))
    assert [type(layer) for layer in fast] == [nn.Conv2d, nn.Conv2d, SparseConv2d, nn.ReLU, nn.Conv2d]
    assert fast[2].density == pytest.approx(0.1, abs=0.001)
    with torch.no_grad():
        torch.testing.assert_close(fast(images), pruned(images), rtol=0, atol=1e-5)
    assert all(torch.equal(one, other) for one, other in zip(pruned.parameters(), before.parameters(), strict=True))
    slow_memory = sparse(pruned, images, Machine(flops=1e12, bandwidth=1e6))
    assert not any(isinstance(layer, SparseConv2d) for layer in slow_memory)


def test_this_machine_can_be_measured() -> None:
    machine = measured(seconds=0)
    assert machine.flops > 1e8
    assert machine.bandwidth > 1e8
    assert machine.alpha != 0
