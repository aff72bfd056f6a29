import pytest
import torch
from torch import nn

from distill.errors import RecipeError
from distill.optim import build_optimizer, build_schedule, factor
from distill.schema import Optimizer, Schedule


def rates(spec: Schedule, *, epochs: int, steps_per_epoch: int) -> list[float]:
    optimizer = build_optimizer([nn.Parameter(torch.zeros(1))], Optimizer(lr=1.0))
    schedule = build_schedule(optimizer, spec, steps=epochs * steps_per_epoch, epochs=epochs)
    seen = []
    for _ in range(epochs * steps_per_epoch):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_step_drops_at_its_milestones() -> None:
    seen = rates(Schedule("step", milestones=[2, 3]), epochs=4, steps_per_epoch=7)
    assert seen == pytest.approx([1.0] * 14 + [0.1] * 7 + [0.01] * 7)


def test_cosine_matches_torchs_own() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    expected = []
    for _ in range(12):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert rates(Schedule("cosine"), epochs=3, steps_per_epoch=4) == pytest.approx(expected)


def test_warm_up_rises_to_the_full_rate() -> None:
    spec = Schedule("cosine", warmup_epochs=2.0)
    assert factor(spec, 1.0, 10) == pytest.approx(0.5)
    assert factor(spec, 2.0, 10) == 1.0
    assert factor(spec, 10.0, 10) == pytest.approx(0.0)


@pytest.mark.parametrize("spec", [{"name": "cosine", "milestones": [3]}, {"name": "step"}])
def test_milestones_belong_to_step(spec: dict) -> None:
    with pytest.raises(RecipeError, match="'step' needs them"):
        Schedule(**spec)
