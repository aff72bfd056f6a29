"""One row of the report: what a network costs and how good it is after one step of a run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
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
        return cls(**row)
