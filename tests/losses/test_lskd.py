"""Standardized logits: the teacher's ranking counts, not its scale."""

import statistics

import pytest
import torch
from torchdistill.losses.mid_level import LogitStdKDLoss

from distill.losses.kd import soft_targets
from distill.losses.lskd import standardized_soft_targets


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 6, generator=generator), 3 * torch.randn(4, 6, generator=generator)


def test_lskd_matches_the_definition(logits) -> None:
    expected = 0.0
    for pair in zip(*logits):
        scores = []
        for row in pair:
            mean, deviation = statistics.mean(row.tolist()), statistics.stdev(row.tolist())
            scores.append(torch.tensor([(z - mean) / deviation / 2 for z in row.tolist()]).softmax(0))
        student, teacher = scores
        expected += 4 * sum(p * (p / q).log() for p, q in zip(teacher, student)) / 4
    torch.testing.assert_close(standardized_soft_targets(*logits), expected)


def test_lskd_equals_torchdistills(logits) -> None:
    student, teacher = logits
    peer = LogitStdKDLoss("net", "output", "net", "output", temperature=2.0, alpha=0.5, beta=1.0)
    labels = torch.zeros(4, dtype=torch.long)
    value = peer({"net": {"output": student}}, {"net": {"output": teacher}}, labels)
    hard = 0.5 * torch.nn.functional.cross_entropy(student, labels)
    torch.testing.assert_close(standardized_soft_targets(student, teacher), value - hard)


def test_lskd_is_zero_for_any_positive_scaling_and_shift_of_the_teacher(logits) -> None:
    _, teacher = logits
    assert standardized_soft_targets(0.1 * teacher + 5, teacher).item() == pytest.approx(0, abs=1e-6)
    assert standardized_soft_targets(-teacher, teacher) > 0.1


def test_lskd_teaches_a_classifier_that_starts_at_zero_as_kd_does(logits) -> None:
    teacher = logits[1] - logits[1].mean(1, keepdim=True)
    teacher = teacher / teacher.std(1, keepdim=True)
    gradients = []
    for function in (standardized_soft_targets, soft_targets):
        student = torch.zeros(4, 6, requires_grad=True)
        function(student, teacher, temperature=2.0).backward()
        gradients.append(student.grad)
    torch.testing.assert_close(gradients[0], gradients[1])
