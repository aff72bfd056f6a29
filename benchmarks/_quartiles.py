"""Latencies that were measured in turns, in rows and tables; older rows have medians alone, and are shown as they are.

A row has ``milliseconds``, the medians; ``quartiles_ms``, of the same form, with the lower and upper quartiles; and
``waited``, the share of the time that went to other processes of the machine.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from benchmarks._results import Row
from distill.measure.latency import SAME_SPEED, Timing, busy, same_speed


def fields(timings: Mapping[str, Timing]) -> Row:
    """Medians and quartiles of one network at each batch size."""
    return {
        "milliseconds": {key: timing.median for key, timing in timings.items()},
        "quartiles_ms": {key: list(timing.quartiles) for key, timing in timings.items()},
    }


def marked(text: str, quartiles: Sequence[float] | None, others: Sequence[float] | None) -> str:
    """A latency, marked if it cannot be told from the one that it is compared with."""
    return f"{SAME_SPEED}{text}" if quartiles and others and same_speed(quartiles, others) else text


def middle_quartiles(rows: Sequence[Row], key: str) -> list[float] | None:
    """At one batch size: the medians over seeds, if all have been measured."""
    known = [row["quartiles_ms"][key] for row in rows if "quartiles_ms" in row]
    return [statistics.median(ends) for ends in zip(*known, strict=True)] if len(known) == len(rows) else None


def note(rows: Iterable[Row], text: str, compared: str) -> str:
    """What follows dates and machines below a table: what its mark means, and that the machine was busy."""
    same = f"{SAME_SPEED} quartiles overlap with those of {compared}" if SAME_SPEED in text else ""
    disturbed = busy(max((row.get("waited", 0.0) for row in rows), default=0.0))
    return "".join(f"; {part}" for part in (same, disturbed) if part)
