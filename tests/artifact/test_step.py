"""A row of the report as plain data: exact both ways, and rows of earlier versions are read."""

from dataclasses import replace
from typing import Any

import pytest

from distill.artifact.step import Step

ROW = {
    "step": "student",
    "params": 100,
    "macs": 200,
    "bytes": 300,
    "metrics": {"val/accuracy": 0.9},
    "latency_ms": {"batch1": 0.3},
    "seconds": 1.5,
}


def test_a_row_without_effective_counts_is_read_and_written_as_it_was() -> None:
    step = Step.from_json(ROW)
    assert (step.effective_params, step.effective_macs) == (None, None)
    assert step.to_json() == ROW


def test_effective_counts_are_kept() -> None:
    step = replace(Step.from_json(ROW), effective_params=20)
    assert step.to_json() == {**ROW, "effective_params": 20}
    assert Step.from_json(step.to_json()) == step


@pytest.mark.parametrize(
    "change", [{"params": "100"}, {"effective_macs": True}, {"metrics": [1]}, {"other": 1}, {"seconds": None}]
)
def test_other_fields_and_types_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a step of the history"):
        Step.from_json({**ROW, **change})
    for name in change.keys() & ROW.keys():
        with pytest.raises(ValueError, match="other fields"):
            Step.from_json({key: value for key, value in ROW.items() if key != name})
