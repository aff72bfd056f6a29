"""What a sweep shows: every trial that ends, once, and how far it has come."""

import io
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from distill.sweep.file import read
from distill.sweep.progress import Screen
from tests.sweep.objectives import GRID, combined, fussy, go, interrupted, write


def lines(capsys: pytest.CaptureFixture) -> list[str]:
    return [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if line[:6] == "trial " and ":" in line]


def test_trials_of_other_processes_are_shown_once_each(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    go(tmp_path, jobs=2, objective=combined, method="grid", parameters=GRID)
    assert sorted(lines(capsys)) == [f"trial {number} complete" for number in range(6)]


def test_what_ended_earlier_or_is_repeated_is_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, objective=interrupted, method="grid", parameters=GRID)
    assert lines(capsys) == ["trial 0 complete", "trial 1 complete"]
    go(tmp_path, objective=fussy, method="grid", parameters=GRID)
    assert lines(capsys) == [
        "trial 3 fail",  # number 2 was interrupted
        "trial 4 fail",
        "trial 5 complete",
        "trial 6 complete",
    ]


@pytest.mark.parametrize(("goal", "best"), [("maximize", "0.75"), ("minimize", "0.5")])
def test_the_bar_counts_trials_and_names_the_best(tmp_path: Path, goal: str, best: str) -> None:
    plan = read(write(tmp_path, metric={"name": "val/accuracy", "goal": goal}))
    study = optuna.create_study()
    study.tell(study.ask(), 0.5)
    terminal = Console(file=io.StringIO(), force_terminal=True, width=160, color_system=None)
    screen = Screen(study, plan, 20, terminal)
    study.tell(study.ask(), 0.75)
    study.tell(study.ask(), state=TrialState.PRUNED)
    study.ask()
    screen.update()
    terminal.print(screen.progress)
    shown = terminal.file.getvalue()
    assert "trial 0" not in shown
    assert "trial 1 complete: val/accuracy 0.7500" in shown
    assert f"3/20 trials  1 running  best val/accuracy {best}" in shown
