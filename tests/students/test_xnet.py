"""Convolutions whose connections are a random graph."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import students
from distill.models.surgery import deployable
from students.xnet import XConv2d
from tests.students.test_counts import million_macs, on_meta

PUBLISHED = {24: (0.4, 144), 36: (0.75, 324), 48: (1.4, 575), 60: (2.15, 898)}
"""Millions of parameters and of MACs of X-DenseNet-BC-40-k-2, by k."""
RELEASED = {24: 350_218, 36: 777_394, 48: 1_372_618, 60: 2_135_890}
"""Parameters of the same, with as many draws as the authors' code makes."""


def mask(conv: XConv2d) -> Tensor:
    """Whether a connection exists, (outputs, inputs), one by one from what was drawn."""
    connected = torch.zeros(conv.outputs, conv.inputs)
    for drawer, others in enumerate(conv.drawn.tolist()):
        for other in others:
            connected[(drawer, other) if conv.inputs > conv.outputs else (other, drawer)] = 1
    return connected


@given(inputs=st.integers(1, 24), outputs=st.integers(1, 24), data=st.data())
@settings(max_examples=30, deadline=None)
def test_each_channel_of_the_narrower_end_draws_d_distinct_others(
    inputs: int, outputs: int, data: st.DataObject
) -> None:
    wide = max(inputs, outputs)
    expander = data.draw(st.integers(1, wide))
    connected = mask(XConv2d(inputs, outputs, expander=expander))
    assert connected.sum(dim=1 if inputs > outputs else 0).eq(wide // expander).all()


CASES = [(12, 8, 1, 1, 2), (8, 12, 1, 1, 2), (10, 10, 3, 2, 5), (12, 4, 3, 1, 3), (4, 12, 3, 2, 4)]


@pytest.mark.parametrize(("inputs", "outputs", "kernel", "stride", "expander"), CASES)
def test_both_ways_to_compute_it_are_a_masked_dense_convolution(
    inputs: int, outputs: int, kernel: int, stride: int, expander: int
) -> None:
    conv = XConv2d(inputs, outputs, kernel, stride, expander=expander)
    connected = mask(conv)[:, :, None, None]
    weight = conv.kernel().detach().requires_grad_()
    assert torch.equal(weight != 0, connected.expand_as(weight) != 0)
    images = torch.randn(2, inputs, 7, 6)
    masked = F.conv2d(images, weight * connected, None, stride, kernel // 2)
    direction = torch.randn_like(masked)
    (slope,) = torch.autograd.grad(masked, weight, direction)
    assert slope.masked_select(connected.expand_as(weight) == 0).eq(0).all()
    for conv.gathered in (False, True):
        result = conv(images)
        torch.testing.assert_close(result, masked, rtol=1e-5, atol=1e-5)
        (gradient,) = torch.autograd.grad(result, conv.weight, direction)
        assert gradient.norm().item() == pytest.approx(slope.norm().item(), rel=1e-4)
        torch.testing.assert_close(deployable(nn.Sequential(conv))(images), masked, rtol=1e-5, atol=1e-5)
    assert type(deployable(nn.Sequential(XConv2d(inputs, outputs)))[0]) is nn.Conv2d


def test_the_connections_stay_while_the_weights_learn_and_go_with_the_state_dict() -> None:
    torch.manual_seed(0)
    network, other = (students.x_densenet(depth=10, growth=4, expander=4) for _ in range(2))
    graphs = [{name: b.clone() for name, b in n.named_buffers() if "drawn" in name} for n in (network, other)]
    assert all((graphs[0][name] != graphs[1][name]).any() for name in graphs[0])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=0.1)
    images = torch.randn(4, 3, 8, 8)
    network(images).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(graphs[0][name], network.get_buffer(name)) for name in graphs[0])
    other.load_state_dict(network.state_dict())
    assert torch.equal(other.eval()(images), network.eval()(images))


def test_weights_start_with_the_variance_of_he_et_al() -> None:
    conv = XConv2d(128, 64, 3, expander=4)
    assert conv.weight.std().item() == pytest.approx((2 / (64 / 4 * 9)) ** 0.5, rel=0.05)


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 64), (64, 32), (32, 64)])
def test_the_graph_has_a_spectral_gap_and_equal_groups_have_none(inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    expander = mask(XConv2d(inputs, outputs, expander=8))
    grouped = torch.block_diag(*[torch.ones(outputs // 8, inputs // 8)] * 8)
    assert expander.sum() == grouped.sum()
    gaps = [1 - (values := torch.linalg.svdvals(connected))[1] / values[0] for connected in (expander, grouped)]
    assert gaps[0] > 0.2
    assert gaps[1] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("growth", PUBLISHED)
def test_x_densenet_has_the_published_counts(growth: int) -> None:
    params, macs = PUBLISHED[growth]
    network = on_meta("x_densenet", {"growth": growth, "gathered": True})
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == pytest.approx(params * 1e6, rel=0.13 if params < 1 else 0.02)
    assert million_macs(network, 32) == pytest.approx(macs, rel=0.006)
    widening = [m for m in network.modules() if isinstance(m, XConv2d) and m.inputs < m.outputs]
    assert count - sum(m.inputs * (m.outputs - m.inputs) // 2 for m in widening) == RELEASED[growth]


@pytest.mark.parametrize(("expander", "published"), [(2, 85.8), (4, 53.7), (8, 37.6), (16, 29.5)])
def test_x_mobilenet_lacks_half_a_million_of_the_published_macs(expander: int, published: float) -> None:
    network = on_meta("x_mobilenet", {"expander": expander, "gathered": True})
    assert published - million_macs(network, 224) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("name", ["x_densenet", "x_mobilenet"])
def test_a_network_computes_the_same_either_way(name: str) -> None:
    torch.manual_seed(0)
    dense, gathered = (getattr(students, name)(gathered=gathered, num_classes=10).eval() for gathered in (False, True))
    gathered.load_state_dict(dense.state_dict())
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(gathered(images), dense(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("build", "setting", "message"),
    [
        (students.x_densenet, {"growth": 0}, "growth is 0, but must be at least 1"),
        (students.x_densenet, {"depth": 41}, "depth is 41, but must be 4 more than a multiple of 6, such as 40 or 100"),
        (students.x_densenet, {"expander": 0}, "expander is 0, but must be from 1 to 48"),
        (students.x_mobilenet, {"expander": 300}, "expander is 300, but must be from 1 to 64"),
        (students.x_mobilenet, {"width": 0.0}, "width is 0.0, but must be a number above 0"),
    ],
)
def test_settings_without_a_network_are_refused(
    build: Callable[..., nn.Module], setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(**setting)
