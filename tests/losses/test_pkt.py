"""Probabilities that images are neighbours."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchdistill.losses.mid_level import PKTLoss

from distill.losses.pkt import probabilistic


@pytest.fixture
def embeddings() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 3, generator=generator), torch.randn(5, 4, generator=generator)


def test_pkt_matches_the_definition(embeddings) -> None:
    def probabilities(rows: Tensor) -> list[list[Tensor]]:
        kernel = [[(F.cosine_similarity(a, b, dim=0) + 1) / 2 for b in rows] for a in rows]
        return [[value / sum(row) for value in row] for row in kernel]

    student, teacher = map(probabilities, embeddings)
    expected = sum(teacher[i][j] * (teacher[i][j] / student[i][j]).log() for i in range(5) for j in range(5)) / 25
    torch.testing.assert_close(probabilistic(*embeddings), expected, rtol=1e-4, atol=0)


def test_pkt_equals_torchdistills(embeddings) -> None:
    student, teacher = embeddings
    peer = PKTLoss("net", "output", "net", "output")
    value = peer({"net": {"output": student.clone()}}, {"net": {"output": teacher.clone()}})
    torch.testing.assert_close(probabilistic(student, teacher), value, rtol=1e-4, atol=0)


def test_pkt_is_zero_where_only_lengths_differ(embeddings) -> None:
    teacher = embeddings[1]
    lengths = torch.tensor([[1.0], [2.0], [0.1], [5.0], [3.0]])
    assert probabilistic(lengths * teacher, teacher).item() == pytest.approx(0, abs=1e-8)


def test_pkt_is_finite_for_opposite_and_for_empty_embeddings(embeddings) -> None:
    student = embeddings[0].clone()
    student[1], student[2] = -student[0], 0
    student.requires_grad_()
    value = probabilistic(student, embeddings[1])
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


def test_pkt_averages_a_map_over_its_pixels(embeddings) -> None:
    maps = torch.randn(5, 3, 4, 2, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(probabilistic(maps, embeddings[1]), probabilistic(maps.mean((2, 3)), embeddings[1]))


def test_pkt_refuses_a_batch_of_one() -> None:
    with pytest.raises(ValueError, match="pkt compares .* this batch has one; enlarge batch_size"):
        probabilistic(torch.randn(1, 4), torch.randn(1, 4))
