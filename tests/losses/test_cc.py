"""Correlations of images under a Gaussian kernel."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchdistill.losses.mid_level import CCKDLoss

from distill.losses.cc import CorrelationCongruence, kernel


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def features() -> tuple[Tensor, Tensor]:
    return torch.randn(5, 6), torch.randn(5, 8)


def congruence() -> CorrelationCongruence:
    return CorrelationCongruence((8, 6), (8, 8), dimension=4)


def test_cc_matches_the_definition(features) -> None:
    loss = congruence()
    student, teacher = loss.student_embedding(features[0]), loss.teacher_embedding(features[1])
    squares = 0.0
    for i in range(5):
        for j in range(5):
            x, y = 0.8 * (student[i] @ student[j]), 0.8 * (teacher[i] @ teacher[j])
            squares += (math.exp(-0.8) * ((1 + x + x**2 / 2) - (1 + y + y**2 / 2))) ** 2
    torch.testing.assert_close(loss(*features), squares.sqrt() / 25)


def test_cc_equals_torchdistills(features) -> None:
    loss = congruence()
    peer = CCKDLoss("linear", "linear", {"type": "gaussian", "gamma": 0.4, "max_p": 2}, "batchmean")
    student = {"linear": {"output": loss.student_embedding(features[0])}}
    teacher = {"linear": {"output": loss.teacher_embedding(features[1])}}
    torch.testing.assert_close(loss(*features), peer(student, teacher))


def test_cc_of_unit_embeddings_tends_to_the_gaussian_kernel(features) -> None:
    rows = F.normalize(features[0])
    exact = (-0.4 * torch.cdist(rows, rows).square()).exp()
    errors = [(kernel(rows, 0.4, order) - exact).abs().max().item() for order in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-6


def test_cc_is_zero_for_a_perfect_student_and_trains_on(features) -> None:
    loss = CorrelationCongruence((8, 6), (8, 6), dimension=4)
    loss.teacher_embedding.load_state_dict(loss.student_embedding.state_dict())
    student = features[0].clone().requires_grad_()
    value = loss(student, features[0])
    value.backward()
    assert value.item() == 0
    assert student.grad.isfinite().all()


def test_cc_trains_both_embeddings(features) -> None:
    loss = congruence()
    loss(*features).backward()
    assert loss.student_embedding.weight.grad.any()
    assert loss.teacher_embedding.weight.grad.any()


def test_cc_averages_a_map_over_its_pixels(features) -> None:
    loss, maps = congruence(), torch.randn(5, 6, 4, 2)
    torch.testing.assert_close(loss(maps, features[1]), loss(maps.mean((2, 3)), features[1]))


def test_cc_refuses_a_batch_of_one() -> None:
    with pytest.raises(ValueError, match="cc compares .* this batch has one; enlarge batch_size"):
        congruence()(torch.randn(1, 6), torch.randn(1, 8))
