"""Softmax regression representation: both parts, what the classifier must be, and that it stays frozen."""

import pytest
import torch
from torch import nn

from distill.losses.srrl import SoftmaxRegression
from tests.nets import ConvNet

SHAPES = (4, 6, 5, 5), (4, 16, 3, 3)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_srrl_matches_the_definition() -> None:
    network = ConvNet()
    loss = SoftmaxRegression(*SHAPES, network, alpha=2.0, beta=3.0)
    student, teacher = (torch.randn(shape) for shape in SHAPES)
    mapped = loss.connector(student).mean(dim=(2, 3))
    features = sum((mapped[n, c] - teacher[n, c].mean()).square() for n in range(4) for c in range(16)) / (4 * 16)
    weight, bias = network.head.weight, network.head.bias
    logits = 0.0
    for n in range(4):
        for k in range(10):
            mine, theirs = (weight[k] @ row + bias[k] for row in (mapped[n], teacher[n].mean(dim=(1, 2))))
            logits += (mine - theirs).square() / (4 * 10)
    torch.testing.assert_close(loss(student, teacher), 2 * features + 3 * logits)


def test_srrl_is_zero_for_a_student_that_has_found_the_teacher() -> None:
    loss = SoftmaxRegression(*SHAPES, ConvNet()).eval()
    student = torch.randn(SHAPES[0])
    assert loss(student, loss.connector(student)).item() == pytest.approx(0, abs=1e-10)


def test_srrl_compares_pooled_vectors_as_it_compares_maps() -> None:
    loss = SoftmaxRegression((4, 6), (4, 16), ConvNet())
    student, teacher = torch.randn(4, 6), torch.randn(4, 16)
    torch.testing.assert_close(loss(student, teacher), loss(student[:, :, None, None], teacher[:, :, None, None]))


def test_srrl_judges_by_the_teachers_own_logits() -> None:
    """With features weighed at nothing, a teacher that answers the same whatever it sees leaves nothing to learn."""
    network = ConvNet()
    nn.init.zeros_(network.head.weight)
    loss = SoftmaxRegression(*SHAPES, network, alpha=0.0)
    assert loss(torch.randn(SHAPES[0]), torch.randn(SHAPES[1])) == 0


def test_srrl_neither_trains_nor_saves_the_teachers_classifier() -> None:
    network = ConvNet()
    loss = SoftmaxRegression(*SHAPES, network)
    loss(torch.randn(SHAPES[0]), torch.randn(SHAPES[1])).backward()
    assert network.head.weight.grad is None
    assert {name.partition(".")[0] for name in [*loss.state_dict(), *dict(loss.named_parameters())]} == {"connector"}


def test_srrl_refuses_a_teacher_without_a_linear_classifier() -> None:
    network = nn.Sequential(nn.Conv2d(3, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(
        ValueError, match=r"srrl reads the classifier, a network's last nn\.Linear, but Sequential has none"
    ):
        SoftmaxRegression(*SHAPES, network)


def test_srrl_refuses_a_tap_that_the_classifier_does_not_read() -> None:
    with pytest.raises(
        ValueError, match="'head' of ConvNet reads 16 features and the tap has 8 channels; tap the last"
    ):
        SoftmaxRegression(SHAPES[0], (4, 8, 7, 7), ConvNet())
