"""Rows of several seeds as one: means and standard deviations.

A row without a seed holds what is known of several seeds together: medians, and ``{"mean": 84.1, "stdev": 0.3}`` in
place of an accuracy. It is shown until seeds are measured one by one.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks._jobs import spread
from benchmarks._results import Row


def grouped(rows: Iterable[Row], *fields: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows that differ in their seed alone, seed by seed."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row.get(field) for field in fields), []).append(row)
    return {key: _single(some) for key, some in found.items()}


def _single(rows: Sequence[Row]) -> list[Row]:
    return sorted((row for row in rows if "seed" in row), key=lambda row: row["seed"]) or [rows[-1]]


def shown(rows: Sequence[Row], field: str) -> str:
    """Mean and standard deviation of a field."""
    value = rows[0][field]
    if isinstance(value, dict):
        return f"{value['mean']:.2f}" + (f" ± {value['stdev']:.2f}" if "stdev" in value else "")
    return spread([row[field] for row in rows])


def gain(rows: Sequence[Row], others: Sequence[Row], field: str) -> str:
    """How much higher a field is than that of others, seed by seed; marked where that is more than twice its deviation.

    What is known of several seeds together is compared by its mean, and never marked.
    """
    known = {row["seed"]: row[field] for row in others if "seed" in row}
    gains = [row[field] - known[row["seed"]] for row in rows if row.get("seed") in known]
    return marked(gains or [mean(rows, field) - mean(others, field)])


def marked(gains: Sequence[float]) -> str:
    """Mean and standard deviation of what is gained with each seed; marked where the mean is more than two of them."""
    if len(gains) < 2:
        return f"{gains[0]:+.2f}"
    deviation = statistics.stdev(gains)
    mark = " *" if abs(statistics.mean(gains)) > 2 * deviation else ""
    return f"{statistics.mean(gains):+.2f} ± {deviation:.2f}{mark}"


def mean(rows: Sequence[Row], field: str) -> float:
    """Of an accuracy."""
    value = rows[0][field]
    return value["mean"] if isinstance(value, dict) else statistics.mean(row[field] for row in rows)


def middle(rows: Sequence[Row], value: Callable[[Row], float]) -> float:
    """The median over seeds."""
    return statistics.median(value(row) for row in rows)
