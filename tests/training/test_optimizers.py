import pytest
import torch
from torch import nn

from distill.errors import RecipeError
from distill.recipe.schema import Optimizer, Schedule
from distill.recipe.typed import section
from distill.training.optimizers import build_optimizer, build_schedule, factor, parameter_groups


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


def test_the_first_glob_that_matches_decides_the_learning_rate() -> None:
    network = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1))
    other = nn.Parameter(torch.zeros(1))
    spec = Optimizer(lr=0.1, lr_factors={"1.bias": 2.0, "1.*": 10.0})
    groups = build_optimizer(parameter_groups(dict(network.named_parameters()), [other], spec), spec).param_groups
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    expected = dict.fromkeys(("0.weight", "0.bias", "2.weight", "2.bias"), 0.1)
    expected |= {"1.bias": 0.2, "1.weight": 1.0}
    assert rates.pop(id(other)) == 0.1
    assert {path: rates[id(parameter)] for path, parameter in network.named_parameters()} == pytest.approx(expected)


@pytest.mark.parametrize("factors", [{"2.*": 10.0}, {"0.*": 10.0, "0.weight": 2.0}])
def test_a_glob_without_parameters_is_told(factors: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=f"'{list(factors)[-1]}'".replace("*", "\\*")):
        parameter_groups(dict(nn.Sequential(nn.Linear(1, 1)).named_parameters()), [], Optimizer(lr_factors=factors))


def test_a_factor_of_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"at optimizer.lr_factors.\*: .* must be above 0"):
        section({"lr_factors": {"*": 0.0}}, Optimizer, "optimizer")
