"""Pixels related to those of other images."""

import pytest
import torch
import torch.nn.functional as F

from distill.losses.cirkd import cross_image_relations


def test_cirkd_matches_the_definition() -> None:
    """Yang et al., equations 3 to 5, image by image."""
    student, teacher = torch.randn(3, 5, 2, 3), torch.randn(3, 7, 2, 3)
    expected = torch.tensor(0.0)
    for i in range(3):
        for j in range(3):
            relations = []
            for maps in (student, teacher):
                a, b = (F.normalize(maps[image].flatten(1), dim=0) for image in (i, j))
                relations.append(((a.T @ b) / 0.5).softmax(1))
            q, p = relations
            expected += (p * (p / q).log()).sum() / 6 / 9
    torch.testing.assert_close(cross_image_relations(student, teacher, temperature=0.5), expected)


def test_cirkd_is_zero_for_a_turned_and_stretched_student() -> None:
    teacher = torch.randn(2, 4, 3, 3)
    turn = torch.linalg.qr(torch.randn(4, 4)).Q
    student = 3 * torch.einsum("ab,nbhw->nahw", turn, teacher)
    assert cross_image_relations(student, teacher).item() == pytest.approx(0, abs=1e-5)


def test_cirkd_averages_larger_maps_to_its_grid() -> None:
    student, teacher = torch.randn(2, 4, 8, 12), torch.randn(2, 4, 8, 12)
    small = [F.avg_pool2d(maps, (4, 6)) for maps in (student, teacher)]
    torch.testing.assert_close(cross_image_relations(student, teacher, grid=2), cross_image_relations(*small, grid=2))
    wide = F.interpolate(student, scale_factor=2)
    torch.testing.assert_close(
        cross_image_relations(wide, teacher, grid=8), cross_image_relations(student, teacher, grid=8)
    )
