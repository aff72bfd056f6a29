"""Fine-tuning after a hook is kept only if it does not make the network worse."""

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from distill.artifact import Artifact
from distill.console import console
from distill.pipeline.run import no_worse
from distill.tasks.classification import Classification
from tests.nets import TEN_CLASSES


def experiment(*values: float | None) -> Any:
    """One that finds these values, one after the other."""
    found = iter({} if value is None else {"val/accuracy": value} for value in values)
    task = Classification(TEN_CLASSES)
    return SimpleNamespace(task=task, monitored="val/accuracy", validate=lambda predict: next(found))


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [(0.9, 0.91, "after"), (0.9, 0.9, "after"), (0.9, 0.89, "before"), (None, None, "after")],
)
def test_the_validation_split_decides(before: float | None, after: float | None, kept: str) -> None:
    choice = {"before": Artifact(nn.Linear(1, 1)), "after": Artifact(nn.Linear(1, 1))}
    unchecked = getattr(no_worse, "__wrapped__", no_worse)  # test runs check types first
    with console.capture() as shown:
        result = unchecked(experiment(before, after), "compress/1-int8", choice["before"], choice["after"])
    assert result is choice[kept]
    said = "fine-tuning is undone: val/accuracy was 0.9000 before it and 0.8900 after"
    assert (said in " ".join(shown.get().split())) == (kept == "before")
