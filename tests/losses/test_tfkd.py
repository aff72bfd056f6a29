"""Teacher-free distillation: a teacher that is always right, and never sure."""

import pytest
import torch
import torch.nn.functional as F

from distill.losses.tfkd import teacher_free

LABELS = torch.tensor([2, 0, 4])


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(3, 5, generator=torch.Generator().manual_seed(0))


def test_tfkd_matches_the_definition(logits) -> None:
    expected = 0.0
    for row, label in zip(logits, LABELS.tolist()):
        # A probability p at temperature T is p^(1/T), brought to sum 1.
        virtual = [(0.9 if k == label else 0.1 / 4) ** (1 / 3) for k in range(5)]
        student = (row / 3).softmax(0)
        for k in range(5):
            p = virtual[k] / sum(virtual)
            expected += p * (torch.tensor(p) / student[k]).log() / 3
    torch.testing.assert_close(teacher_free(logits, LABELS, confidence=0.9, temperature=3.0), expected)


def test_tfkd_at_temperature_1_is_label_smoothing_up_to_the_teachers_entropy(logits) -> None:
    virtual = torch.full((5,), 0.1 / 4)
    virtual[0] = 0.9
    entropy = -(virtual * virtual.log()).sum()
    # F.cross_entropy gives the right class (1 - smoothing) + smoothing / classes.
    smoothed = F.cross_entropy(logits, LABELS, label_smoothing=0.1 * 5 / 4)
    torch.testing.assert_close(teacher_free(logits, LABELS, confidence=0.9, temperature=1.0), smoothed - entropy)


def test_tfkd_is_zero_for_the_virtual_teacher_itself() -> None:
    student = torch.full((3, 5), 0.01 / 4).log().scatter(1, LABELS[:, None], torch.tensor(0.99).log().item())
    assert teacher_free(student, LABELS).item() == pytest.approx(0, abs=1e-7)


def test_tfkd_pulls_an_overconfident_student_back() -> None:
    student = torch.tensor([[30.0, 0.0, 0.0]], requires_grad=True)
    teacher_free(student, torch.tensor([0])).backward()
    assert student.grad[0, 0] > 0
    assert (student.grad[0, 1:] < 0).all()


def test_tfkd_is_finite_at_extreme_logits() -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    value = teacher_free(student, torch.tensor([1]), temperature=1.0)
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("confidence", [1.0, 0.2, -1.0])
def test_tfkd_refuses_a_virtual_teacher_that_is_certain_or_wrong(logits, confidence: float) -> None:
    with pytest.raises(ValueError, match="with 5 classes is above 1/5 and below 1"):
        teacher_free(logits, LABELS, confidence=confidence)
