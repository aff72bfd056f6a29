"""The logarithm of normalised differences."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from distill.losses.srd import ProjectedLogSum


def test_srd_matches_the_definition() -> None:
    loss = ProjectedLogSum((6, 3), (6, 4))
    student, teacher = torch.randn(6, 3), torch.randn(6, 4)

    def normalised(rows: np.ndarray) -> np.ndarray:
        return (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)

    projected = student.numpy() @ loss.projector.weight.detach().numpy().T + loss.projector.bias.detach().numpy()
    differences = normalised(projected) - normalised(teacher.numpy())
    expected = math.log(float((differences**4).sum()) / differences.size)
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-4)


def test_srd_has_the_gradient_of_the_sum() -> None:
    """The authors' form: a mean and a sum in the logarithm differ by a constant."""
    loss = ProjectedLogSum((6, 3), (6, 4))
    loss.projector = nn.Linear(3, 4)
    student, teacher = torch.randn(6, 3, requires_grad=True), torch.randn(6, 4)
    (found,) = torch.autograd.grad(loss(student, teacher), student)
    norms = nn.BatchNorm1d(4, affine=False), nn.BatchNorm1d(4, affine=False)
    total = (norms[0](loss.projector(student)) - norms[1](teacher)).pow(4).sum().log()
    torch.testing.assert_close(found, torch.autograd.grad(total, student)[0], rtol=1e-4, atol=1e-6)


def test_srd_does_not_depend_on_the_scale_of_either_side() -> None:
    loss = ProjectedLogSum((6, 3), (6, 4))
    student, teacher = torch.randn(6, 3), torch.randn(6, 4)
    value = loss(student, teacher)
    torch.testing.assert_close(loss(student, 50 * teacher - 3), value, rtol=1e-3, atol=1e-4)


def test_srd_of_a_perfect_student_is_finite_and_at_rest() -> None:
    loss = ProjectedLogSum((6, 4), (6, 4))
    loss.projector = nn.Identity()
    features = torch.randn(6, 4, requires_grad=True)
    loss(features, features.detach()).backward()
    assert features.grad.abs().max() < 1e-4


def test_srd_refuses_a_batch_of_one() -> None:
    with pytest.raises(ValueError, match="srd compares .* this batch has one; enlarge batch_size"):
        ProjectedLogSum((1, 3), (1, 4))(torch.randn(1, 3), torch.randn(1, 4))
