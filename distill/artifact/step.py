"""One row of the report: what a network costs and how good it is after one step of a run."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
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
    effective_params: int | None = None
    """Without zeros of weights, and with values that a hash shares counted once; None: about as many as ``params``."""
    effective_macs: int | None = None
    """Without products with zeros of weights; None: about as many as ``macs``."""

    @property
    def parameters(self) -> str:
        """Their number in words: "352,042 parameters, 35,204 of them effective"."""
        effective = "" if self.effective_params is None else f", {self.effective_params:,} of them effective"
        return f"{self.params:,} parameters{effective}"

    def to_json(self) -> dict[str, Any]:
        """Plain data, as report.json and metrics.json hold it; a field that is None is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Step":
        """The inverse of `to_json`.

        Raises:
            ValueError: a field is missing, unknown or of another type.
        """
        known = {field.name: field.default is MISSING for field in fields(cls)}
        if not row.keys() <= known.keys() or any(name not in row for name, required in known.items() if required):
            raise ValueError(f"a step of the history has other fields: {', '.join(map(str, row))}")
        numbers = [row[name] for name in ("params", "macs", "bytes", "seconds")]
        numbers += [*_values(row["metrics"]), *_values(row["latency_ms"])]
        numbers += [row[name] for name in ("effective_params", "effective_macs") if name in row]
        if not isinstance(row["step"], str) or not all(map(_is_number, numbers)):
            raise ValueError("a step of the history has a field of another type")
        return cls(**row)


def _values(row: Any) -> list[Any]:
    return list(row.values()) if isinstance(row, Mapping) else [None]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
