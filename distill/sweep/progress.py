"""What a sweep shows while it runs: a line for each trial that ends, and a progress bar with the best value so far."""

import contextlib
import sys
import threading
from collections.abc import Iterator

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from distill.console import new_console
from distill.sweep.file import SweepFile, short

SECONDS = 1.0
"""Between two looks at the study."""


@contextlib.contextmanager
def shown(study: optuna.Study, plan: SweepFile, count: int) -> Iterator[None]:
    """Print every trial that ends meanwhile, whichever process ran it; on a terminal, a progress bar below.

    The storage is asked, not the workers: their own output goes to files, and several machines may share one study.

    Args:
        study: the sweep's.
        plan: says what a trial's line holds.
        count: how many trials there will be.
    """
    console = new_console()
    console.file = sys.stdout  # what trials print is redirected later, this is not
    screen = Screen(study, plan, count, console)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(SECONDS):
            screen.update()

    watcher = threading.Thread(target=watch, daemon=True)
    with screen.progress:
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
            screen.update()


class Screen:
    """The lines and the progress bar of one sweep.

    Args:
        study: the sweep's.
        plan: says what a trial's line holds.
        count: how many trials there will be.
        console: where to print.
    """

    def __init__(self, study: optuna.Study, plan: SweepFile, count: int, console: Console) -> None:
        self.study, self.plan, self.console = study, plan, console
        self.known = {trial.number for trial in self._ended()}
        self.progress = Progress(
            TextColumn(f"sweep {plan.name}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("trials  {task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.bar = self.progress.add_task("trials", total=count, completed=len(self.known), state=self._state())

    def update(self) -> None:
        """Print what has ended since the last call."""
        with contextlib.suppress(StorageInternalError):  # the workers meet the same error, and end with it
            for trial in self._ended():
                if trial.number not in self.known:
                    self.known.add(trial.number)
                    self.console.print(self.plan.describe(trial), soft_wrap=True, markup=False)
            self.progress.update(self.bar, completed=len(self.known), state=self._state())

    def _ended(self) -> list[FrozenTrial]:
        """A trial that failed without an error was put back into the queue and is repeated under another number."""
        trials = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
        return [trial for trial in trials if trial.state != TrialState.FAIL or "error" in trial.user_attrs]

    def _state(self) -> str:
        running = len(self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]))
        values = [trial.value for trial in self._ended() if trial.state == TrialState.COMPLETE]
        best = (max if self.plan.maximize else min)([value for value in values if value is not None], default=None)
        return f"{running} running" + ("" if best is None else f"  best {self.plan.metric} {short(best)}")
