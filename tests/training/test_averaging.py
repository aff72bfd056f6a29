"""Running averages of weights, and stages that keep them."""

from pathlib import Path

import pytest
import torch
from torch import nn

from distill.errors import RecipeError
from distill.recipe.schema import Stage
from distill.training.averaging import average
from distill.training.fit import fit
from tests.training.test_distiller import SETTINGS, digits, distiller, same, term, trained


def test_it_is_the_weighted_mean_of_all_weights_so_far() -> None:
    model = nn.Linear(1, 1, bias=False)
    averaged, expected = average(model, 0.5), None
    for step in range(12):
        nn.init.constant_(model.weight, float(step * step))
        averaged.update_parameters(model)
        left = min(0.5, (1 + step) / (10 + step))
        expected = float(step * step) if expected is None else left * expected + (1 - left) * step * step
        assert averaged.module.weight.item() == pytest.approx(expected, rel=1e-6)


def test_running_statistics_are_averaged_and_counts_are_copied() -> None:
    model = nn.BatchNorm1d(3)
    averaged = average(model, 0.9)
    for _ in range(3):
        model(torch.randn(8, 3) + 5)
        averaged.update_parameters(model)
    assert averaged.module.num_batches_tracked == 3
    assert (averaged.module.running_mean > 0).all()
    assert (averaged.module.running_mean < model.running_mean).all()


def test_a_stage_trains_as_without_an_average_and_keeps_it(tmp_path: Path) -> None:
    last, plain = trained(Stage(epochs=2), tmp_path / "plain")
    averaged, curve = trained(Stage(epochs=2, ema=0.9), tmp_path / "ema")
    assert not same(last, averaged)
    assert [row["train/loss"] for row in curve] == [row["train/loss"] for row in plain]
    assert all(parameter.requires_grad for parameter in averaged.parameters())
    assert not averaged.training


def test_the_average_is_not_trained() -> None:
    module = distiller(Stage(epochs=1, ema=0.9))
    trained_parameters = {id(p) for group in module._groups() for p in group["params"]}
    assert module.average is not None
    assert not trained_parameters & {id(p) for p in module.average.parameters()}


def test_gradients_of_several_batches_are_one_step(tmp_path: Path) -> None:
    module = distiller(Stage(epochs=2, ema=0.9))
    fit(module, digits(), tmp_path, title="student", settings={**SETTINGS, "accumulate_grad_batches": 2})
    batches = len(digits().train_dataloader())
    assert int(module.average.n_averaged) == 2 * -(-batches // 2)


def test_a_part_that_ships_without_being_averaged_is_refused() -> None:
    simkd = term("simkd", student=["stage3"], teacher=["stage3"])
    with pytest.raises(RecipeError, match="loss 'simkd' learns a part that ships .*: remove ema"):
        distiller(Stage(epochs=1, ema=0.9, task_weight=0, losses={"simkd": simkd}))
