"""Knowledge review: against plain loops and torchdistill's fusion and context loss."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchdistill.losses.mid_level import HierarchicalContextLoss
from torchdistill.models.wrapper import AttentionBasedFusion

from distill.losses.reviewkd import KnowledgeReview, hierarchical_context

STUDENT = [(4, 6, 8, 8), (4, 8, 4, 4), (4, 8, 1, 1)]
TEACHER = [(4, 5, 8, 8), (4, 7, 4, 4), (4, 9, 1, 1)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def random_maps(shapes: list[tuple[int, ...]]) -> list[Tensor]:
    return [torch.randn(shape) for shape in shapes]


def test_reviewkd_equals_torchdistill() -> None:
    ours = KnowledgeReview(STUDENT, TEACHER)
    student, teacher = random_maps(STUDENT), random_maps(TEACHER)
    peers = [AttentionBasedFusion(s[1], 8, t[1], i < 2) for i, (s, t) in enumerate(zip(STUDENT, TEACHER, strict=True))]
    context, deeper, expected = HierarchicalContextLoss("s", "output", "t", "output"), None, 0.0
    for peer, fusion, s, t in reversed(list(zip(peers, ours.fusions, student, teacher, strict=True))):
        peer.conv1.load_state_dict(fusion.reduce.state_dict())
        peer.conv2.load_state_dict(fusion.expand.state_dict())
        if peer.attention_conv:
            peer.attention_conv[0].load_state_dict(fusion.attend.state_dict())
        output, deeper = peer(s, deeper, s.shape[-1])
        expected += context({"s": {"output": (output, deeper)}}, {"t": {"output": t}})
    torch.testing.assert_close(ours(student, teacher), expected)


@pytest.mark.parametrize(
    ("size", "levels"), [(8, [8, 4, 2, 1]), (7, [7, 4, 2, 1]), (4, [4, 2, 1]), (2, [2, 1]), (1, [1])]
)
def test_reviewkd_compares_a_map_at_every_smaller_level(size: int, levels: list[int]) -> None:
    student, teacher = torch.randn(2, 3, size, size), torch.randn(2, 3, size, size)
    values = [F.mse_loss(F.adaptive_avg_pool2d(student, n), F.adaptive_avg_pool2d(teacher, n)) for n in levels]
    weights = [1, 1 / 2, 1 / 4, 1 / 8][: len(levels)]
    expected = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    torch.testing.assert_close(hierarchical_context(student, teacher), expected)


def test_reviewkd_does_not_fuse_the_deepest_map() -> None:
    review = KnowledgeReview(STUDENT[-1:], TEACHER[-1:])
    student, teacher = random_maps(STUDENT[-1:]), random_maps(TEACHER[-1:])
    fusion = review.fusions[0]
    expected = F.mse_loss(fusion.expand(fusion.reduce(student[0])), teacher[0])
    torch.testing.assert_close(review(student, teacher), expected)


def test_reviewkd_teaches_deep_maps_through_shallow_ones_and_not_the_other_way() -> None:
    review = KnowledgeReview(STUDENT, TEACHER)
    student = [features.requires_grad_() for features in random_maps(STUDENT)]
    fused = None
    outputs = []
    for features, fusion in zip(reversed(student), reversed(review.fusions), strict=True):
        fused, output = fusion(features, fused, features.shape[2:])
        outputs.append(output)
    deepest, *_, shallowest = outputs
    reached = [
        [
            grad is not None
            for grad in torch.autograd.grad(o.square().sum(), student, allow_unused=True, retain_graph=True)
        ]
        for o in (deepest, shallowest)
    ]
    assert reached == [[False, False, True], [True, True, True]]


def test_reviewkd_is_zero_for_a_student_that_has_found_the_teacher() -> None:
    review = KnowledgeReview(STUDENT[:1], TEACHER[:1]).eval()
    student = random_maps(STUDENT[:1])
    fusion = review.fusions[0]
    assert review(student, [fusion.expand(fusion.reduce(student[0]))]).item() == pytest.approx(0, abs=1e-12)


def test_reviewkd_compares_at_the_teachers_size() -> None:
    review = KnowledgeReview(STUDENT[:1], [(4, 5, 4, 6)]).eval()
    student, teacher = random_maps(STUDENT[:1])[0], torch.randn(4, 5, 4, 6)
    fusion = review.fusions[0]
    rows, columns = torch.arange(4) * 8 // 4, torch.arange(6) * 8 // 6  # repeated or skipped, never averaged
    expected = hierarchical_context(fusion.expand(fusion.reduce(student)[:, :, rows][:, :, :, columns]), teacher)
    torch.testing.assert_close(review([student], [teacher]), expected)


def test_reviewkd_takes_vectors_as_single_pixels() -> None:
    review = KnowledgeReview([*STUDENT[:2], (4, 8)], [*TEACHER[:2], (4, 9)])
    student, teacher = random_maps(STUDENT), random_maps(TEACHER)
    expected = review(student, teacher)
    torch.testing.assert_close(
        review([*student[:2], student[2][:, :, 0, 0]], [*teacher[:2], teacher[2][:, :, 0, 0]]), expected
    )


def test_reviewkd_fuses_in_no_more_channels_than_the_deepest_map_has() -> None:
    assert [KnowledgeReview(STUDENT, TEACHER, channels=n).fusions[0].reduce[0].out_channels for n in (512, 3)] == [8, 3]


def test_reviewkd_refuses_a_tap_without_a_partner() -> None:
    with pytest.raises(ValueError, match="3 of the student and 2 of the teacher"):
        KnowledgeReview(STUDENT, TEACHER[:2])
