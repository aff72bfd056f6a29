"""Every trial is run once, whatever stops and however many processes work at it."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from distill.errors import UserError
from distill.recipe.loading import load
from distill.sweep import sweep, train
from tests.sweep.objectives import (
    GRID,
    TINY,
    bowl,
    chosen,
    combined,
    go,
    interrupted,
    slow,
    write,
)


def test_an_interrupted_sweep_goes_on_to_the_same_total(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, objective=interrupted, method="grid", parameters=GRID)
    result = go(tmp_path, method="grid", parameters=GRID)
    assert [trial.state for trial in result.trials] == [TrialState.COMPLETE] * 6
    assert chosen(result) == [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]


def test_more_trials_can_be_asked_for_later_and_another_search_is_another_study(tmp_path: Path) -> None:
    three = go(tmp_path, 3)
    five = go(tmp_path, 5)
    assert chosen(five)[:3] == chosen(three)
    assert [trial.datetime_complete for trial in five.trials[:3]] == [t.datetime_complete for t in three.trials]
    assert len(go(tmp_path, 5).trials) == 5
    assert len(go(tmp_path, 2, method="bayes").trials) == 2


def test_an_edited_recipe_is_another_sweep(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    began = []
    for seed in (1, 1, 2):
        recipe.write_text(f"base: smoke\nseed: {seed}\n")
        done = go(tmp_path, 2, command=["python", "train.py", f"recipe={recipe}", "${args_no_hyphens}"])
        began.append([trial.datetime_start for trial in done.trials])
    assert began[0] == began[1] != began[2]


def test_a_trial_whose_process_was_killed_is_done_again(tmp_path: Path) -> None:
    arguments = (tmp_path, 2, 1, slow)
    process = multiprocessing.get_context("spawn").Process(target=go, args=arguments)
    process.start()
    log = tmp_path / "runs/sweeps/file/trials/0.log"
    deadline = time.monotonic() + 40
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    result = go(tmp_path, 2)
    assert [trial.state for trial in result.trials] == [TrialState.COMPLETE] * 2
    assert chosen(result) == chosen(go_elsewhere(tmp_path / "fresh", 2))


def go_elsewhere(folder: Path, trials: int):
    folder.mkdir()
    return go(folder, trials)


def test_several_processes_share_one_storage(tmp_path: Path) -> None:
    result = go(tmp_path, jobs=2, objective=combined, method="grid", parameters=GRID)
    assert chosen(result) == [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]
    assert len({trial.number for trial in result.trials}) == 6
    assert len({trial.user_attrs["worker"] for trial in result.trials}) == 2


def test_a_storage_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/no/such/folder.db"
    with pytest.raises(UserError, match=r"cannot use storage 'sqlite:.*folder.db'.*unable to open"):
        sweep(write(tmp_path), trials=1, storage=url, overrides=[f"output={tmp_path}"], objective=bowl)


def test_a_real_sweep_of_real_runs(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(TINY)
    result = go(
        tmp_path,
        objective=train,
        method="grid",
        parameters={"stages.distill.losses.kd.temperature": {"values": [2, 4]}},
        command=["train.py", f"recipe={recipe}", "${args_no_hyphens}"],
    )
    assert [trial.state for trial in result.trials] == [TrialState.COMPLETE] * 2
    assert list(result.trials[0].intermediate_values) == [1, 2]  # the first stage's epoch, then the other's
    best = load(str(result.best))
    assert best.stages["distill"].losses["kd"].temperature in (2, 4)
    reports = [json.loads(path.read_text()) for path in (tmp_path / "runs/tiny").glob("*/report.json")]
    values = [report["steps"][-1]["metrics"]["val/accuracy"] for report in reports]
    assert (len(values), max(values)) == (2, result.value)
