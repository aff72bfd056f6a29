"""Groups that are learned."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import students
from distill.models import cost
from distill.models.surgery import deployable
from students.flgc import GroupedConv, LearnedGroupConv, membership
from tests.students.test_counts import on_meta


def layer(inputs: int, outputs: int, groups: int, kernel: int = 1, stride: int = 1) -> LearnedGroupConv:
    return LearnedGroupConv(nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2), groups)


@given(
    inputs=st.integers(1, 9),
    outputs=st.integers(1, 9),
    groups=st.integers(1, 5),
    kernel=st.sampled_from([1, 3]),
    stride=st.sampled_from([1, 2]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_groups_compute_what_a_masked_dense_convolution_does(
    inputs: int, outputs: int, groups: int, kernel: int, stride: int, seed: int
) -> None:
    torch.manual_seed(seed)
    learned = layer(inputs, outputs, groups, kernel, stride)
    of_input, of_filter = learned.assignments().values()
    assert (len(of_input), len(of_filter)) == (inputs, outputs)
    mask = torch.tensor([[float(i == f) for i in of_input] for f in of_filter])
    images = torch.randn(2, inputs, 5, 6)
    expected = F.conv2d(images, learned.weight * mask[:, :, None, None], learned.bias, stride, kernel // 2)
    torch.testing.assert_close(learned(images), expected, rtol=0, atol=0)
    if not mask.any():
        with pytest.raises(ValueError, match="no group has both input channels and filters"):
            learned.deploy()
        return
    grouped = learned.deploy()
    torch.testing.assert_close(grouped(images), expected, rtol=1e-5, atol=1e-5)
    sizes = Counter(of_input), Counter(of_filter)
    connections = sum(sizes[0][group] * sizes[1][group] for group in range(groups))
    assert mask.count_nonzero() == connections
    assert sum(p.numel() for p in grouped.convs.parameters()) == connections * kernel**2


def test_gradients_of_a_membership_are_those_of_the_softmax() -> None:
    scores = torch.randn(7, 4, requires_grad=True)
    direction = torch.randn(7, 4)
    hard = membership(scores)
    assert torch.equal(hard.detach(), torch.eye(4)[scores.argmax(1)])
    (gradient,) = torch.autograd.grad(hard, scores, direction)
    (soft,) = torch.autograd.grad(scores.softmax(1), scores, direction)
    assert torch.equal(gradient, soft)


def fitted(*, learns: bool) -> tuple[float, int]:
    """The loss after 50 steps towards a layer of four hidden groups, and how many channels changed theirs."""
    torch.manual_seed(0)
    blocks = torch.randn(16, 16) * torch.block_diag(*[torch.ones(4, 4)] * 4)
    planted = blocks[torch.randperm(16)][:, torch.randperm(16)]
    learned = layer(16, 16, groups=4)
    before = learned.assignments()
    for scores in (learned.input_scores, learned.filter_scores):
        scores.requires_grad_(learns)
    optimizer = torch.optim.Adam([p for p in learned.parameters() if p.requires_grad], lr=0.1)
    for _ in range(50):
        images = torch.randn(64, 16, 1, 1)
        loss = (learned(images).flatten(1) - images.flatten(1) @ planted.T).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    changed = sum(a != b for key, old in before.items() for a, b in zip(old, learned.assignments()[key], strict=True))
    return loss.item(), changed


def test_channels_change_their_groups_and_end_better_than_in_random_ones() -> None:
    loss, changed = fitted(learns=True)
    at_random, unchanged = fitted(learns=False)
    assert unchanged == 0
    assert changed >= 8
    assert loss < 0.7 * at_random


def test_filters_without_inputs_answer_their_bias_and_inputs_without_filters_are_not_read() -> None:
    conv = nn.Conv2d(3, 4, 1)
    grouped = GroupedConv(conv, inputs=[0, 1, 5], filters=[2, 0, 0, 2])
    images = torch.randn(2, 3, 4, 4)
    result = grouped(images)
    for silent in (0, 3):
        assert conv.bias is not None
        assert result[:, silent].eq(conv.bias[silent]).all()
    images[:, 1:] = torch.nan
    assert torch.equal(grouped(images), result)
    assert [(conv.in_channels, conv.out_channels) for conv in grouped.convs] == [(1, 2)]


def test_eight_equal_groups_save_32_4_million_macs_of_mobilenet_v2() -> None:
    settings = {"small_images": True, "num_classes": 10}
    network = students.flgc_mobilenet_v2(**settings)
    layers = [module for module in network.modules() if isinstance(module, LearnedGroupConv)]
    assert len(layers) == 17
    for learned in layers:
        for scores in (learned.input_scores, learned.filter_scores):
            scores.data = torch.eye(8)[torch.arange(len(scores)) % 8]
    images = torch.empty(1, 3, 32, 32, device="meta")
    dense = cost.macs(on_meta("mobilenet_v2", settings), images)
    assert (dense - cost.macs(deployable(network).to("meta"), images)) / 1e6 == pytest.approx(32.4, abs=0.05)


def test_a_network_computes_the_same_once_its_groups_are_cut() -> None:
    torch.manual_seed(0)
    network = students.flgc_mobilenet_v2(small_images=True, width=0.35, num_classes=10, groups=3)
    images = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        network(images)
        expected = network.eval()(images)
        torch.testing.assert_close(deployable(network)(images), expected, rtol=1e-5, atol=1e-5 * float(expected.max()))
    assert cost.params(deployable(network)) < cost.params(network)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: students.flgc_mobilenet_v2(groups=0), "groups is 0, but must be at least 1"),
        (
            lambda: LearnedGroupConv(nn.Conv2d(4, 4, 1, groups=2), 2),
            "groups are learned by convolutions that have none",
        ),
        (
            lambda: LearnedGroupConv(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), 2),
            "groups are learned by convolutions that have none and are padded with zeros",
        ),
    ],
)
def test_what_cannot_learn_groups_is_refused(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
