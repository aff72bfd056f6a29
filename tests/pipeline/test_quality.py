"""What hooks compare networks by, whatever the task's unit and direction."""

from typing import Any

import pytest
from torch import nn

from distill.pipeline.apply_hook import Quality
from distill.tasks.classification import Classification
from tests.nets import TEN_CLASSES
from tests.tasks.test_task import Distance


def quality(task: Any, values: dict[nn.Module, float], reference: nn.Module) -> tuple[Quality, list[float]]:
    asked: list[float] = []

    def monitor(model: nn.Module) -> float:
        asked.append(values[model])
        return values[model]

    return Quality(task, monitor, reference), asked


def test_accuracy_is_passed_on_as_it_is() -> None:
    before, after = nn.Identity(), nn.Identity()
    found, asked = quality(Classification(TEN_CLASSES), {before: 0.9, after: 0.85}, before)
    assert found(after) == 0.85
    assert asked == [0.85], "no other network is evaluated for it"


@pytest.mark.parametrize("order", ["reference first", "reference last"])
def test_an_error_is_negated_and_relative_to_the_network_before_the_hook(order: str) -> None:
    before, better, worse = nn.Identity(), nn.Identity(), nn.Identity()
    found, asked = quality(Distance(TEN_CLASSES), {before: 4.0, better: 3.0, worse: 4.4}, before)
    if order == "reference first":
        assert found(before) == -1.0
    assert found(before) - found(worse) == pytest.approx(0.1)
    assert found(better) > found(before) > found(worse)
    assert asked.count(4.0) == 1, "the reference is evaluated once"
