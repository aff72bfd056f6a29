"""What each loss computes, derived a second way: plain loops, closed forms, limits."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses.at import attention_transfer
from distill.losses.dkd import decoupled
from distill.losses.fitnet import Hint
from distill.losses.kd import soft_targets
from distill.losses.sp import similarity_preserving


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("function", [attention_transfer, similarity_preserving])
def test_is_zero_for_a_perfect_student(function) -> None:
    maps = torch.randn(4, 8, 6, 6)
    assert function(maps, maps).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("function", [soft_targets, lambda s, t: decoupled(s, t, torch.tensor([0, 3, 4]))])
def test_is_zero_for_equal_logits(function) -> None:
    logits = torch.randn(3, 5)
    assert function(logits, logits.clone()).item() == pytest.approx(0, abs=1e-6)


def test_kd_matches_the_definition() -> None:
    student, teacher = torch.randn(3, 5), torch.randn(3, 5)
    expected = 0.0
    for s, t in zip(student / 2, teacher / 2, strict=True):
        p, q = t.softmax(0), s.softmax(0)
        expected += sum(p[k] * (p[k] / q[k]).log() for k in range(5)) / 3
    torch.testing.assert_close(soft_targets(student, teacher, temperature=2.0), 4 * expected)


def test_kd_of_maps_is_the_mean_over_positions() -> None:
    student, teacher = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    values = [soft_targets(student[..., y, x], teacher[..., y, x]) for y in range(3) for x in range(4)]
    torch.testing.assert_close(soft_targets(student, teacher), torch.stack(values).mean())


def test_kd_at_high_temperature_matches_centred_logits() -> None:
    """Hinton et al., section 2.1: for large T its gradient is (z_i - v_i) / N of zero-mean logits."""
    student, teacher = torch.randn(1, 5).requires_grad_(), torch.randn(1, 5)
    soft_targets(student, teacher, temperature=1000.0).backward()
    centred = [logits - logits.mean() for logits in (student.detach(), teacher)]
    torch.testing.assert_close(student.grad, (centred[0] - centred[1]) / 5, rtol=1e-2, atol=1e-3)


def test_at_matches_the_definition() -> None:
    student, teacher = torch.randn(3, 2, 4, 4), torch.randn(3, 5, 4, 4)

    def attention(maps: Tensor) -> Tensor:
        flat = torch.stack(
            [torch.stack([sum(c**2 for c in image[:, y, x]) for y in range(4) for x in range(4)]) for image in maps]
        )
        return torch.stack([row / row.norm() for row in flat])

    expected = (attention(student) - attention(teacher)).pow(2).mean()
    torch.testing.assert_close(attention_transfer(student, teacher), expected)


def test_at_pools_the_larger_map() -> None:
    student, teacher = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(
        attention_transfer(student, teacher), attention_transfer(F.avg_pool2d(student, 2), teacher)
    )


def test_sp_matches_the_definition() -> None:
    student, teacher = torch.randn(3, 2, 4, 4), torch.randn(3, 5, 2, 2)

    def gram(maps: Tensor) -> Tensor:
        rows = torch.stack([torch.stack([(a * b).sum() for b in maps]) for a in maps])
        return torch.stack([row / row.norm() for row in rows])

    expected = (gram(student) - gram(teacher)).pow(2).sum() / 9
    torch.testing.assert_close(similarity_preserving(student, teacher), expected)


def test_sp_refuses_a_batch_of_one() -> None:
    with pytest.raises(ValueError, match="this batch has one; enlarge batch_size"):
        similarity_preserving(torch.randn(1, 4), torch.randn(1, 4))


def test_dkd_matches_the_definition() -> None:
    student, teacher, labels = torch.randn(4, 6), torch.randn(4, 6), torch.tensor([5, 0, 2, 2])
    expected = torch.tensor(0.0)
    for s, t, label in zip(student / 4, teacher / 4, labels, strict=True):
        q, p = s.softmax(0), t.softmax(0)
        target = p[label] * (p[label] / q[label]).log() + (1 - p[label]) * ((1 - p[label]) / (1 - q[label])).log()
        rest = [k for k in range(6) if k != label]
        others = sum(p[k] / (1 - p[label]) * (p[k] / (1 - p[label]) / (q[k] / (1 - q[label]))).log() for k in rest)
        expected += 16 * (1.0 * target + 8.0 * others) / 4
    torch.testing.assert_close(decoupled(student, teacher, labels), expected, rtol=1e-4, atol=1e-5)


def test_dkd_with_the_teachers_own_weights_is_kd() -> None:
    """Equation 6: KD = TCKD + (1 - p_label) NCKD, one image at a time."""
    student, teacher, label = torch.randn(1, 5), torch.randn(1, 5), torch.tensor([3])
    beta = 1 - (teacher / 3).softmax(1)[0, 3].item()
    torch.testing.assert_close(
        decoupled(student, teacher, label, beta=beta, temperature=3.0), soft_targets(student, teacher, temperature=3.0)
    )


def test_dkd_is_finite_at_extreme_logits() -> None:
    student, labels = torch.tensor([[1e4, -1e4, 0.0]]).requires_grad_(), torch.tensor([0])
    value = decoupled(student, torch.tensor([[-1e4, 1e4, 0.0]]), labels)
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


def test_dkd_needs_a_third_class() -> None:
    with pytest.raises(ValueError, match="only 2; use kd"):
        decoupled(torch.randn(4, 2), torch.randn(4, 2), torch.tensor([0, 1, 1, 0]))


def test_fitnet_is_zero_once_its_regressor_has_found_the_teacher() -> None:
    hint = Hint((4, 3, 6, 6), (4, 3, 6, 6))
    torch.nn.init.dirac_(hint.regressor[0].weight)
    student = torch.randn(4, 3, 6, 6)
    assert hint(student, hint.regressor[1](student).detach()).item() == pytest.approx(0, abs=1e-6)


def test_fitnet_compares_at_the_smaller_size() -> None:
    hint = Hint((4, 3, 8, 8), (4, 5, 4, 4)).eval()
    student, teacher = torch.randn(4, 3, 8, 8), torch.randn(4, 5, 4, 4)
    projected = hint.regressor(F.avg_pool2d(student, 2))
    torch.testing.assert_close(hint(student, teacher), (projected - teacher).square().mean())
