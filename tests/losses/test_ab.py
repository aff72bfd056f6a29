"""Activation boundaries: which neurons fire."""

import pytest
import torch
from torch import nn
from torchdistill.losses.mid_level import AltActTransferLoss

from distill.losses.ab import ActivationBoundaries

SHAPES = [(3, 4, 6, 6), (3, 5, 3, 3)]


def maps() -> list[torch.Tensor]:
    return [2 * torch.randn(shape) for shape in SHAPES]


@pytest.mark.parametrize("margin", [1.0, 0.3])
def test_ab_matches_the_definition(margin: float) -> None:
    student, teacher = maps(), maps()
    expected = 0.0
    for weight, s, t in zip((0.5, 1.0), student, teacher, strict=True):
        for ours, theirs in zip(s.flatten().tolist(), t.flatten().tolist(), strict=True):
            if theirs > 0 and ours < margin:
                expected += weight * (margin - ours) ** 2
            if theirs <= 0 and ours > -margin:
                expected += weight * (margin + ours) ** 2
    value = ActivationBoundaries(SHAPES, SHAPES, margin=margin)(student, teacher)
    assert value.item() == pytest.approx(expected / 3 * 3 / 1000, rel=1e-5)


def test_ab_equals_torchdistills_but_for_the_references_scale() -> None:
    student, teacher = maps(), maps()
    pairs = {
        str(i): {
            "student": {"io": "output", "path": str(i)},
            "teacher": {"io": "output", "path": str(i)},
            "weight": weight,
        }
        for i, weight in enumerate((0.5, 1))
    }
    taps = [{str(i): {"output": values} for i, values in enumerate(features)} for features in (student, teacher)]
    theirs = AltActTransferLoss(pairs, margin=1.0, reduction="mean")(*taps)
    torch.testing.assert_close(ActivationBoundaries(SHAPES, SHAPES)(student, teacher), 3 / 1000 * theirs)


def test_ab_is_zero_beyond_the_margin_on_the_right_side_only() -> None:
    loss = ActivationBoundaries([(2, 3, 4, 4)], [(2, 3, 4, 4)])
    teacher = torch.randn(2, 3, 4, 4)
    assert loss([1.001 * teacher.sign()], [teacher]) == 0
    assert loss([0.9 * teacher.sign()], [teacher]) > 0
    assert loss([-5 * teacher.sign()], [teacher]) > loss([-teacher.sign()], [teacher])


def test_ab_takes_a_teachers_zero_for_silence() -> None:
    loss = ActivationBoundaries([(1, 1)], [(1, 1)])
    assert loss([torch.tensor([[-1.0]])], [torch.zeros(1, 1)]) == 0
    assert loss([torch.tensor([[1.0]])], [torch.zeros(1, 1)]) > 0


def test_ab_connects_by_learned_layers_only_where_channels_differ() -> None:
    loss = ActivationBoundaries([(2, 3, 4, 4), (2, 4, 4, 4)], [(2, 3, 4, 4), (2, 6, 4, 4)])
    assert isinstance(loss.connectors[0], nn.Identity)
    assert [p.shape for p in loss.parameters()] == [(6, 4, 1, 1), (6,), (6,)]


def test_ab_learns_to_fire_when_the_teacher_does() -> None:
    student, teacher = torch.randn(16, 3, 4, 4), torch.randn(16, 3, 4, 4)
    student.requires_grad_()
    loss = ActivationBoundaries([(16, 3, 4, 4)], [(16, 3, 4, 4)])
    optimizer = torch.optim.Adam([student], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        loss([student], [teacher]).backward()
        optimizer.step()
    assert torch.equal(student > 0, teacher > 0)


def test_ab_refuses_a_tap_that_is_left_over() -> None:
    with pytest.raises(ValueError, match="ab compares taps in pairs, but there are 2 of the student and 1 of the"):
        ActivationBoundaries(SHAPES, SHAPES[:1])
