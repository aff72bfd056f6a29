"""Every trial is what the file asks for, and the best recipe is written out."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from optuna.trial import TrialState

from distill.errors import DistillError
from distill.recipe.loading import load
from distill.recipe.plain import resolved
from distill.sweep.work import Report
from tests.sweep.objectives import GRID, bowl, chosen, climb, fussy, go, setting


def test_a_grid_is_every_combination_once(tmp_path: Path) -> None:
    result = go(tmp_path, method="grid", parameters=GRID)
    points = [(trial.params["optimizer.lr"], trial.params["stages.hint.epochs"]) for trial in result.trials]
    assert points == [(0.1, 1), (0.1, 2), (0.2, 1), (0.2, 2), (0.3, 1), (0.3, 2)]
    assert len(go(tmp_path, method="grid", parameters=GRID).trials) == 6


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_the_same_sweep_makes_the_same_trials(tmp_path: Path, method: str) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    first = chosen(go(tmp_path / "a", 12, method=method))
    go(tmp_path / "b", 5, method=method)
    assert chosen(go(tmp_path / "b", 12, method=method)) == first
    assert len(set(first)) == 12
    if method == "bayes":  # ten to look around, then it knows
        distances = [abs(math.log10(rate / 0.1)) for rate in first]
        assert sum(distances[10:]) / 2 < sum(distances[:10]) / 10


def test_the_best_recipe_is_written_out_and_loads(tmp_path: Path) -> None:
    result = go(tmp_path, method="grid", parameters=GRID)
    recipe = load(str(result.best))
    assert (recipe.optimizer.lr, result.value) == (0.1, 1.0)
    by_hand = load("smoke", [f"output={tmp_path / 'runs'}", "optimizer.lr=0.1", "stages.hint.epochs=1"])
    assert resolved(recipe) == resolved(by_hand)
    header = result.best.read_text()
    assert re.match(r"# Best of 6 trials of sweep 'file' \(grid\): val/accuracy 1.0000, \d{4}-\d\d-\d\d\.\n", header)
    assert f"#   python train.py recipe={result.best}\n" in header


def test_minimising_is_the_default_goal_and_any_size_can_be_the_metric(tmp_path: Path) -> None:
    def size(name: str, overrides: Sequence[str], report: Report) -> Mapping[str, float]:
        return {"bytes": setting(overrides, "optimizer.lr")}

    result = go(tmp_path, objective=size, method="grid", parameters=GRID, metric={"name": "bytes"})
    assert result.value == 0.1


def test_a_trial_that_fails_is_recorded_and_the_sweep_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    result = go(tmp_path, objective=fussy, method="grid", parameters=GRID)
    states = [trial.state for trial in result.trials]
    assert states.count(TrialState.FAIL) == 2
    assert states.count(TrialState.COMPLETE) == 4
    assert "DistillError: diverged" in capsys.readouterr().out
    again = go(tmp_path, objective=bowl, method="grid", parameters=GRID)
    assert [trial.state for trial in again.trials] == states  # done is done


def test_a_sweep_in_which_nothing_works_says_why(tmp_path: Path) -> None:
    with pytest.raises(DistillError, match="no trial of sweep .* ended well; .* val/accuracy is nan"):
        go(tmp_path, 2, objective=lambda *_: {"val/accuracy": math.nan})


def test_early_termination_stops_what_falls_behind(tmp_path: Path) -> None:
    rates = {"optimizer.lr": {"values": [0.1, 0.9, 0.8, 0.7]}}
    stop = {"type": "hyperband", "min_iter": 2, "eta": 2}
    result = go(tmp_path, objective=climb, method="grid", parameters=rates, early_terminate=stop)
    assert [trial.state.name for trial in result.trials] == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED"]
    # At epoch 2 the last one is among the better half, at epoch 4 it is not.
    assert [len(trial.intermediate_values) for trial in result.trials] == [4, 2, 2, 4]
    whole = {"type": "hyperband", "max_iter": 16, "s": 3, "eta": 2}  # compared after 2, 4 and 8 epochs
    again = go(tmp_path, objective=climb, method="grid", parameters=rates, early_terminate=whole)
    assert [len(trial.intermediate_values) for trial in again.trials] == [4, 2, 2, 4]


def test_a_trials_own_output_goes_to_its_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def chatty(name: str, overrides: Sequence[str], report: Report) -> Mapping[str, float]:
        from distill.console import console

        console.print("epoch by epoch")
        return bowl(name, overrides, report)

    go(tmp_path, 1, objective=chatty)
    assert "epoch by epoch" not in capsys.readouterr().out
    assert (tmp_path / "runs/sweeps/file/trials/0.log").read_text() == "epoch by epoch\n"
