"""Differences of outputs."""

import torch
import torch.nn.functional as F

from distill.losses.difference import difference


def test_difference_is_l1_or_mse() -> None:
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(difference(student, teacher), F.l1_loss(student, teacher))
    torch.testing.assert_close(difference(student, teacher, power=2.0), F.mse_loss(student, teacher))


def test_a_relative_difference_does_not_depend_on_the_scale() -> None:
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    value = difference(student, teacher, power=2.0, relative=True)
    torch.testing.assert_close(difference(50 * student, 50 * teacher, power=2.0, relative=True), value)
    torch.testing.assert_close(difference(0 * student, teacher, power=2.0, relative=True), torch.tensor(1.0))
