"""Logits compared at three levels and several temperatures."""

import pytest
import torch

from distill.losses.kd import soft_targets
from distill.losses.mlld import multi_level


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, generator=generator), torch.randn(4, 3, generator=generator)


def test_mlld_matches_the_definition(logits) -> None:
    student, teacher = logits
    expected = torch.tensor(0.0)
    for temperature in range(2, 7):
        q, p = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
        for i in range(4):
            expected += temperature**2 * sum(p[i, k] * (p[i, k] / q[i, k]).log() for k in range(3)) / 4
            expected += sum(((p[i] * p[j]).sum() - (q[i] * q[j]).sum()) ** 2 for j in range(4)) / 4
        for k in range(3):
            expected += sum(((p[:, k] * p[:, m]).sum() - (q[:, k] * q[:, m]).sum()) ** 2 for m in range(3)) / 3
    torch.testing.assert_close(multi_level(student, teacher), expected)


def test_mlld_is_zero_for_equal_logits(logits) -> None:
    assert multi_level(logits[0], logits[0].clone()).item() == pytest.approx(0, abs=1e-6)


def test_mlld_is_a_sum_over_its_temperatures(logits) -> None:
    parts = [multi_level(*logits, temperatures=(temperature,)) for temperature in (2.0, 5.0)]
    torch.testing.assert_close(multi_level(*logits, temperatures=(2.0, 5.0)), parts[0] + parts[1])


def test_mlld_at_high_temperature_is_kd(logits) -> None:
    """All probabilities are alike there, and so are their products: the other levels vanish, T^2 keeps the first."""
    torch.testing.assert_close(
        multi_level(*logits, temperatures=(100.0,)), soft_targets(*logits, temperature=100.0), rtol=1e-3, atol=0
    )


def test_mlld_treats_all_views_in_a_batch_alike(logits) -> None:
    order = torch.tensor([2, 0, 3, 1])
    shuffled = [rows[order] for rows in logits]
    torch.testing.assert_close(multi_level(*shuffled), multi_level(*logits))


def test_mlld_asks_for_temperatures(logits) -> None:
    with pytest.raises(ValueError, match="name at least one"):
        multi_level(*logits, temperatures=())
