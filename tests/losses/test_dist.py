"""Correlation in place of divergence."""

import pytest
import torch
from scipy.stats import pearsonr
from torchdistill.losses.mid_level import DISTLoss

from distill.losses.dist import stronger_teacher


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 5, generator=generator), 2 * torch.randn(6, 5, generator=generator)


def test_dist_matches_the_definition(logits) -> None:
    student, teacher = ((rows / 4).softmax(1).numpy() for rows in logits)
    inter = 1 - sum(pearsonr(student[i], teacher[i])[0] for i in range(6)) / 6
    intra = 1 - sum(pearsonr(student[:, k], teacher[:, k])[0] for k in range(5)) / 5
    value = stronger_teacher(*logits, beta=2.0, gamma=3.0, temperature=4.0)
    assert value.item() == pytest.approx(16 * (2 * inter + 3 * intra), rel=1e-5)


def test_dist_equals_torchdistills(logits) -> None:
    student, teacher = logits
    peer = DISTLoss("net", "output", "net", "output", beta=1.0, gamma=2.0, tau=4.0)
    value = peer({"net": {"output": student}}, {"net": {"output": teacher}})
    torch.testing.assert_close(stronger_teacher(student, teacher, gamma=2.0, temperature=4.0), value)


def test_dist_is_zero_where_the_probabilities_correlate_without_being_equal(logits) -> None:
    teacher = logits[1]
    # Halfway to the uniform distribution: a linear function of the teacher's probabilities.
    student = (0.5 * teacher.softmax(1) + 0.5 / 5).log()
    assert stronger_teacher(student, teacher).item() == pytest.approx(0, abs=1e-5)
    assert not torch.allclose(student.softmax(1), teacher.softmax(1), atol=0.05)


def test_dist_is_finite_for_constant_probabilities(logits) -> None:
    student = torch.zeros(6, 5, requires_grad=True)
    value = stronger_teacher(student, logits[1])
    value.backward()
    assert value.item() == pytest.approx(2.0)
    assert student.grad.abs().max() < 1  # divided by a length of rounding alone it was a million


@pytest.mark.parametrize("scale", [1e-2, 1e-4])
def test_dist_still_correlates_what_differs_little(logits, scale: float) -> None:
    student, teacher = scale * logits[0].double(), logits[1].double()
    rows = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(student.softmax(1), teacher.softmax(1))]
    value = stronger_teacher(student.float(), teacher.float(), gamma=0.0).item()
    assert value == pytest.approx(1 - float(sum(rows)) / len(rows), abs=1e-2)


def test_dist_refuses_a_batch_of_one() -> None:
    with pytest.raises(ValueError, match="dist compares .* this batch has one; enlarge batch_size"):
        stronger_teacher(torch.randn(1, 4), torch.randn(1, 4))
