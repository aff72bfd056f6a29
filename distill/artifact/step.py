"""One row of the report: what a network costs and how good it is after one step of a run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Step:
    """What a network costs and how good it is after one step of a run."""

    step: str
    """"teacher", "alone", "student", "compress/1-tensor_train", "export/onnx"."""
    params: int
    macs: int
    """Multiply-accumulates for one image."""
    bytes: int
    """On disk."""
    metrics: Mapping[str, float]
    """{"val/accuracy": 0.91, "test/accuracy": 0.90}: fractions, not percent."""
    latency_ms: Mapping[str, float]
    """{"batch1": 0.31, "batch32": 4.2}: one run of the whole batch in ONNX Runtime."""
    seconds: float
    """Wall time of the step."""

    def to_json(self) -> dict[str, Any]:
        """Plain data, as report.json and metrics.json hold it."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Step":
        """The inverse of `to_json`.

        Raises:
            ValueError: a field is missing, unknown or of another type.
        """
        if row.keys() != {field.name for field in fields(cls)}:
            raise ValueError(f"a step of the history has other fields: {', '.join(map(str, row))}")
        step = cls(**row)
        numbers = (step.params, step.macs, step.bytes, step.seconds, *_values(step.metrics), *_values(step.latency_ms))
        if not isinstance(step.step, str) or not all(_is_number(number) for number in numbers):
            raise ValueError("a step of the history has a field of another type")
        return step


def _values(row: Any) -> list[Any]:
    return list(row.values()) if isinstance(row, Mapping) else [None]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
