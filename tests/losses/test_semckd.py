"""Semantic calibration: the attention and the sum over pairs, one image and one pair at a time."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses.semckd import SemanticCalibration

STUDENT, TEACHER = [(4, 3, 8, 8), (4, 6, 4, 4)], [(4, 5, 8, 8), (4, 7, 4, 4), (4, 9, 2, 2)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def random_maps(shapes: list[tuple[int, ...]], batch: int = 4) -> list[Tensor]:
    return [torch.randn(batch, *shape[1:]) for shape in shapes]


def similarity(maps: Tensor) -> Tensor:
    return torch.stack([torch.stack([(a * b).sum() for b in maps]) for a in maps])


def test_semckd_matches_the_definition() -> None:
    loss = SemanticCalibration(STUDENT, TEACHER, 4, dimension=2).eval()
    student, teacher = random_maps(STUDENT), random_maps(TEACHER)
    projectors = iter(loss.projectors)
    distances = torch.zeros(4, 2, 3)
    for i, s in enumerate(student):
        for j, t in enumerate(teacher):
            size = min(s.shape[2], t.shape[2])
            projected = next(projectors)(F.adaptive_avg_pool2d(s, size))
            for image in range(4):
                distances[image, i, j] = F.mse_loss(projected[image], F.adaptive_avg_pool2d(t, size)[image])
    expected = 0.0
    queries = [query(similarity(s)) for query, s in zip(loss.queries, student, strict=True)]
    keys = [key(similarity(t)) for key, t in zip(loss.keys, teacher, strict=True)]
    for image in range(4):
        for i, query in enumerate(queries):
            weights = torch.stack([F.cosine_similarity(query[image], key[image], dim=0) for key in keys]).softmax(0)
            expected += (weights * distances[image, i]).sum() / (4 * 2)
    torch.testing.assert_close(loss(student, teacher), expected)


def test_semckd_learns_its_attention() -> None:
    loss = SemanticCalibration(STUDENT, TEACHER, 4)
    loss(random_maps(STUDENT), random_maps(TEACHER)).backward()
    assert all(parameter.grad.any() for parameter in (*loss.queries[0].parameters(), *loss.keys[0].parameters()))


def test_semckd_attends_evenly_to_equal_layers() -> None:
    loss = SemanticCalibration(STUDENT, [TEACHER[0]] * 2, 4)
    loss.keys[1].load_state_dict(loss.keys[0].state_dict())
    layer = random_maps(TEACHER[:1])
    torch.testing.assert_close(loss.attention(random_maps(STUDENT), layer * 2), torch.full((4, 2, 2), 0.5))


def test_semckd_takes_a_smaller_batch_for_one_whose_rest_is_like_nothing() -> None:
    loss = SemanticCalibration(STUDENT, TEACHER, 6).eval()
    student, teacher = random_maps(STUDENT), random_maps(TEACHER)
    blank = [[torch.cat([f, torch.zeros(2, *f.shape[1:])]) for f in maps] for maps in (student, teacher)]
    torch.testing.assert_close(loss.attention(student, teacher), loss.attention(*blank)[:4])


def test_semckd_refuses_a_batch_that_is_larger_than_it_was_built_for() -> None:
    loss = SemanticCalibration(STUDENT, TEACHER, 4)
    with pytest.raises(ValueError, match="up to 4 images, but this one has 5"):
        loss(random_maps(STUDENT, 5), random_maps(TEACHER, 5))
