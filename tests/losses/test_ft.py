"""Factors: a paraphrase of the teacher, learned beforehand, and the student's translation."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchdistill.losses.mid_level import FTLoss

from distill.losses.ft import FactorTransfer


@pytest.fixture
def maps() -> tuple[Tensor, Tensor]:
    return torch.randn(3, 4, 6, 6), torch.randn(3, 8, 6, 6)


def transfer(**settings) -> FactorTransfer:
    return FactorTransfer((8, 4, 6, 6), (8, 8, 6, 6), **settings)


def directions(factor: Tensor) -> list[Tensor]:
    return [row.flatten() / row.flatten().norm() for row in factor]


def test_ft_matches_the_definition(maps) -> None:
    loss = transfer()
    of_student, of_teacher = loss.translator(maps[0]), loss.paraphraser(maps[1])
    rows = zip(*(directions((f**2).sum(dim=1)) for f in (of_student, of_teacher)), strict=True)
    torch.testing.assert_close(loss(*maps), sum((s - t).abs().sum() for s, t in rows) / (3 * 36))


def test_ft_not_pooled_equals_torchdistills(maps) -> None:
    loss = transfer(pooled=False)
    of_student, of_teacher = loss.translator(maps[0]), loss.paraphraser(maps[1])
    theirs = FTLoss()({"translator": {"output": of_student}}, {"paraphraser": {"output": of_teacher}})
    torch.testing.assert_close(loss(*maps), theirs)
    assert transfer()(*maps) > 1.2 * theirs  # fewer, larger components


def test_ft_sees_directions_only(maps) -> None:
    loss = transfer()
    loss.paraphraser = torch.nn.Identity()
    value = loss(*maps)
    torch.testing.assert_close(loss(maps[0], 7 * maps[1]), value)
    loss.translator = torch.nn.Identity()
    assert loss(maps[1], maps[1]).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(("rate", "channels"), [(0.5, 4), (0.75, 6), (2.0, 16)])
def test_ft_rate_is_factor_channels_for_each_of_the_teachers(rate: float, channels: int, maps) -> None:
    loss = transfer(rate=rate)
    assert loss.paraphraser(maps[1]).shape == loss.translator(maps[0]).shape == (3, channels, 6, 6)


def test_ft_refuses_a_rate_that_leaves_no_channel() -> None:
    with pytest.raises(ValueError, match="rate 0.1 leaves none of the teacher's 8 channels; raise it"):
        transfer(rate=0.1)


class Epochs:
    """Eight channels that two would determine, the same at all pixels; counts how often they are read."""

    def __init__(self) -> None:
        self.read = 0
        few, spread = torch.randn(2, 16, 2), torch.randn(8, 2)
        self.batches = list((few @ spread.T).relu()[..., None, None].expand(-1, -1, -1, 4, 4))

    def __iter__(self):
        self.read += 1
        return iter(self.batches)


@torch.no_grad()  # as in the framework, whose teacher never needs gradients
def test_ft_prepare_learns_a_paraphrase_that_the_teacher_can_be_rebuilt_from() -> None:
    def relative_error(loss: FactorTransfer) -> float:
        """The share of the features' variance that a linear regression on the factors leaves."""
        factors, features = (x.movedim(1, -1).flatten(0, 2) for x in (loss.paraphraser(whole), whole))
        factors, features = factors - factors.mean(0), features - features.mean(0)
        rest = features - factors @ torch.linalg.lstsq(factors, features).solution
        return (rest.square().sum() / features.square().sum()).item()

    epochs, loss = Epochs(), transfer(paraphraser_epochs=20, paraphraser_lr=0.02)
    whole = torch.cat(epochs.batches)
    before = relative_error(loss)
    loss.prepare(epochs)
    assert relative_error(loss) < 0.7 * before
    assert epochs.read == 20


def test_ft_prepare_leaves_the_paraphraser_frozen_and_in_the_state_dict(maps) -> None:
    loss = transfer(paraphraser_epochs=2)
    loss.prepare([maps[1]])
    assert not any(p.requires_grad or p.grad is not None for p in loss.paraphraser.parameters())
    loss(*maps).backward()
    assert all(p.grad is None for p in loss.paraphraser.parameters())
    assert all(p.grad is not None for p in loss.translator.parameters())
    resumed = transfer()
    resumed.load_state_dict(loss.state_dict())
    torch.testing.assert_close(resumed(*maps), loss(*maps))


def test_ft_prepare_repeats_itself_from_one_seed(maps) -> None:
    values = []
    for _ in range(2):
        torch.manual_seed(3)
        loss = transfer(paraphraser_epochs=3)
        loss.prepare([maps[1]])
        values.append(loss(*maps))
    assert torch.equal(*values)


@pytest.mark.parametrize("scale", [1e-2, 1e3])
def test_ft_prepare_learns_at_any_scale(scale: float) -> None:
    epochs, loss = Epochs(), transfer(paraphraser_epochs=10)
    before = {name: value.clone() for name, value in loss.paraphraser.state_dict().items()}
    loss.prepare([scale * batch for batch in epochs.batches])
    after = loss.paraphraser.state_dict()
    assert all(after[name].isfinite().all() and (after[name] - before[name]).abs().mean() > 1e-3 for name in before)


def test_ft_compares_factors_at_the_smaller_size(maps) -> None:
    loss = FactorTransfer((8, 4, 12, 12), (8, 8, 6, 6))
    student = torch.randn(3, 4, 12, 12)
    pooled = F.avg_pool2d(loss.translator(student), 2)
    rows = zip(*(directions((f**2).mean(dim=1)) for f in (pooled, loss.paraphraser(maps[1]))), strict=True)
    torch.testing.assert_close(loss(student, maps[1]), torch.stack([(s - t).abs().mean() for s, t in rows]).mean())
