"""Powers of the teacher's probabilities, and how sure it is."""

import pytest
import torch

from distill.losses.kd import soft_targets
from distill.losses.wttm import transformed_teacher


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    return 2 * torch.randn(3, 5), 2 * torch.randn(3, 5)


def test_wttm_matches_the_definition(logits) -> None:
    expected = 0.0
    for s, t in zip(*(rows.softmax(1).tolist() for rows in logits), strict=True):
        powers = [p ** (1 / 3) for p in t]
        total = sum(powers)
        expected += total * sum(q / total * torch.tensor(q / total / p).log().item() for q, p in zip(powers, s)) / 3
    assert transformed_teacher(*logits, temperature=3.0).item() == pytest.approx(expected, rel=1e-4)


def test_wttm_without_a_transform_is_kd(logits) -> None:
    torch.testing.assert_close(transformed_teacher(*logits, temperature=1.0), soft_targets(*logits, temperature=1.0))


def test_wttm_is_zero_where_the_student_predicts_the_softened_teacher(logits) -> None:
    assert transformed_teacher(logits[1] / 4, logits[1]).item() == pytest.approx(0, abs=1e-6)


def test_wttm_weighs_an_unsure_teacher_more(logits) -> None:
    """The weight lies between 1, of a certain teacher, and classes^(1 - 1/T), of one that knows nothing."""
    student, sure, unsure = logits[0], torch.tensor([[80.0, 0, 0, 0, 0]] * 3), torch.zeros(3, 5)
    for teacher, weight in ((sure, 1.0), (unsure, 5 ** (1 - 1 / 4))):
        plain = soft_targets(student, teacher / 4, temperature=1.0)
        torch.testing.assert_close(transformed_teacher(student, teacher), weight * plain, rtol=1e-4, atol=1e-5)


def test_wttm_of_a_dense_output_is_that_of_its_positions() -> None:
    student, teacher = torch.randn(2, 5, 4, 3), torch.randn(2, 5, 4, 3)
    flat = [one.permute(0, 2, 3, 1).reshape(-1, 5) for one in (student, teacher)]
    torch.testing.assert_close(transformed_teacher(student, teacher), transformed_teacher(*flat))
