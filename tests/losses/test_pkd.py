"""Pearson correlation of channels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses.pkd import Pearson


def pearson(channels: int = 3) -> Pearson:
    return Pearson((2, channels, 4, 4), (2, channels, 4, 4))


def per_channel(maps: Tensor) -> list[Tensor]:
    return list(maps.transpose(0, 1).flatten(1))


def test_pkd_is_one_minus_the_correlation() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), 5 + 3 * torch.randn(2, 3, 4, 4)
    pairs = list(zip(per_channel(student), per_channel(teacher), strict=True))
    expected = np.mean([1 - np.corrcoef(s, t)[0, 1] for s, t in pairs])
    assert pearson()(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_pkd_is_half_the_squared_error_of_standard_scores() -> None:
    """By the paper, with the batch's own variance; with the estimate of its code, (N - 1) / N of that."""
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    for correction, factor in ((0, 1), (1, 31 / 32)):
        scores = [
            [(row - row.mean()) / row.std(correction=correction) for row in per_channel(maps)]
            for maps in (student, teacher)
        ]
        errors = [(s - t).square().mean() / 2 for s, t in zip(*scores, strict=True)]
        torch.testing.assert_close(factor * pearson()(student, teacher), torch.stack(errors).mean())


def test_pkd_sees_neither_scale_nor_offset() -> None:
    teacher = torch.randn(2, 3, 4, 4)
    scale, offset = torch.tensor([0.01, 1.0, 100.0])[:, None, None], torch.randn(3, 1, 1)
    assert pearson()(scale * teacher + offset, teacher).item() == pytest.approx(0, abs=1e-4)
    assert pearson()(-teacher, teacher).item() == pytest.approx(2, abs=1e-5)


def test_pkd_of_a_silent_channel_asks_nothing_of_the_student() -> None:
    student, teacher = torch.randn(2, 3, 4, 4).requires_grad_(), torch.randn(2, 3, 4, 4)
    teacher[:, 1] = 7
    pearson()(student, teacher).backward()
    assert student.grad[:, 1].abs().max() < 1e-6 < student.grad[:, 0].abs().max()


def test_pkd_of_a_constant_student_has_a_finite_gradient() -> None:
    student = torch.zeros(2, 3, 4, 4).requires_grad_()
    pearson()(student, torch.randn(2, 3, 4, 4)).backward()
    assert student.grad.isfinite().all()


def test_pkd_takes_vectors_as_maps_of_one_pixel() -> None:
    student, teacher = torch.randn(6, 3), torch.randn(6, 3)
    loss = Pearson((6, 3), (6, 3))
    torch.testing.assert_close(loss(student, teacher), loss(student[..., None, None], teacher[..., None, None]))


def test_pkd_adapts_where_channels_differ() -> None:
    loss = Pearson((2, 3, 4, 4), (2, 5, 4, 4))
    assert [p.shape for p in loss.parameters()] == [(5, 3, 1, 1), (5,)]
    assert loss(torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4)) > 0
    assert list(pearson().parameters()) == []


def test_pkd_pools_the_larger_map() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(pearson()(student, teacher), pearson()(student, F.avg_pool2d(teacher, 2)))
