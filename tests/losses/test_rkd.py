"""Distances and angles between images."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchdistill.losses.mid_level import RKDLoss

from distill.losses.rkd import relational


@pytest.fixture
def embeddings() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, generator=generator), 2 * torch.randn(4, 4, generator=generator)


def huber(values: list[Tensor], others: list[Tensor]) -> Tensor:
    gaps = [(a - b).abs() for a, b in zip(values, others, strict=True)]
    return torch.stack([0.5 * gap**2 if gap < 1 else gap - 0.5 for gap in gaps]).mean()


def test_rkd_matches_the_definition(embeddings) -> None:
    def distances(rows: Tensor) -> list[Tensor]:
        pairs = [(a - b).norm() for a in rows for b in rows]
        mean = sum(pairs) / sum(bool(pair > 0) for pair in pairs)
        return [pair / mean for pair in pairs]

    def angles(rows: Tensor) -> list[Tensor]:
        zero = torch.tensor(0.0)
        return [
            zero if (a == b).all() or (a == c).all() else F.cosine_similarity(b - a, c - a, dim=0)
            for a in rows
            for b in rows
            for c in rows
        ]

    student, teacher = embeddings
    expected = 25 * huber(distances(student), distances(teacher)) + 50 * huber(angles(student), angles(teacher))
    torch.testing.assert_close(relational(student, teacher), expected)


def test_rkd_equals_torchdistills(embeddings) -> None:
    student, teacher = embeddings
    peer = RKDLoss("net", "net", dist_factor=25.0, angle_factor=50.0, reduction="mean")
    value = peer({"net": {"output": student}}, {"net": {"output": teacher}})
    torch.testing.assert_close(relational(student, teacher), value, rtol=1e-4, atol=0)


def test_rkd_is_zero_for_a_similar_figure(embeddings) -> None:
    """Turned, moved and enlarged: relations are all that counts."""
    teacher = embeddings[1]
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))
    assert relational(3 * teacher @ rotation + 1, teacher).item() == pytest.approx(0, abs=1e-6)


def test_rkd_of_two_equal_embeddings_has_no_gradient_between_them(embeddings) -> None:
    rows = embeddings[0][:1].expand(2, 3).clone().requires_grad_()
    value = relational(rows, embeddings[1][:2])
    value.backward()
    assert value > 1
    assert not rows.grad.any()


def test_rkd_of_two_equal_embeddings_beside_others_has_a_moderate_gradient(embeddings) -> None:
    rows = embeddings[0].clone()
    rows[1] = rows[0]
    rows.requires_grad_()
    relational(rows, embeddings[1]).backward()
    assert 0 < rows.grad.abs().max() < 100


@pytest.mark.parametrize("collapsed", ["student", "teacher"])
def test_rkd_survives_a_collapsed_network(embeddings, collapsed: str) -> None:
    student, teacher = embeddings
    student, teacher = (student[:1].expand(4, 3), teacher) if collapsed == "student" else (student, teacher * 0)
    student = student.clone().requires_grad_()
    value = relational(student, teacher)
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


def test_rkd_averages_a_map_over_its_pixels(embeddings) -> None:
    maps = torch.randn(4, 3, 4, 2, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(relational(maps, embeddings[1]), relational(maps.mean((2, 3)), embeddings[1]))


def test_rkd_refuses_a_batch_of_one() -> None:
    with pytest.raises(ValueError, match="rkd compares .* this batch has one; enlarge batch_size"):
        relational(torch.randn(1, 4), torch.randn(1, 4))
