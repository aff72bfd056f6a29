"""What quality costs: the monitor against size on disk and against latency."""

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

from plotly import graph_objects as go

from distill.artifact.step import Step
from distill.report.content import Report
from distill.report.rows import count, milliseconds, score, title
from distill.report.style import LINE, colour, styled

TOUCHING = 0.09  # of the axis: markers closer than this in both directions become one
MOST_TICKS = 6
TICKS = ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 2, 5), (1, 3), (1,))
"""Times powers of ten: places that an axis may name; the first of these that are at most `MOST_TICKS` in its range."""


class Marker(NamedTuple):
    """A step in a trade-off picture; ``number`` is its row in the table."""

    number: int
    step: str
    x: float
    y: float
    hover: str


def latency(report: Report, step: Step) -> float | None:
    """Milliseconds at the first of the batch sizes."""
    return step.latency_ms.get(f"batch{report.batch_sizes[0]}")


def by_size(report: Report, metric: str) -> go.Figure:
    """A metric against bytes on disk, on a logarithmic axis."""
    markers = _markers(report, metric, lambda step: step.bytes, lambda step: count(step.bytes, "B"))
    figure = _trade_off(report, markers, math.log, math.exp)
    ticks = _sizes([marker.x for marker in markers])
    return figure.update_xaxes(type="log", tickvals=ticks, ticktext=[_named(size) for size in ticks])


def by_latency(report: Report, metric: str) -> go.Figure:
    """A metric against latency."""
    markers = _markers(
        report,
        metric,
        lambda step: latency(report, step),
        lambda step: f"{milliseconds(latency(report, step))} ms",
    )
    return _trade_off(report, markers, float, float, origin=0.0).update_xaxes(rangemode="tozero", ticksuffix=" ms")


def _markers(
    report: Report, metric: str, cost: Callable[[Step], float | None], shown: Callable[[Step], str]
) -> list[Marker]:
    unit = report.unit(report.monitor)
    return [
        Marker(
            number,
            step.step,
            x,
            report.scaled(report.monitor, step.metrics[metric]),
            f"<b>{title(step.step, report)}</b><br>"
            f"{score(report, report.monitor, step.metrics[metric])}{unit}, {shown(step)}",
        )
        for number, step in enumerate(report.steps, start=1)
        if metric in step.metrics and (x := cost(step))
    ]


def _sizes(sizes: Sequence[float]) -> list[int]:
    """Round numbers of bytes to name on an axis: few enough that their labels do not cover each other."""
    low, high = (limit(sizes, default=1) for limit in (min, max))
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [[round(base * 10**decade) for decade in decades for base in bases] for bases in TICKS]
    inside = [[size for size in some if low <= size <= high] for some in every]
    return next((some for some in inside if len(some) <= MOST_TICKS), inside[-1])


def _named(size: int) -> str:
    number, _, unit = count(size, "B").partition(" ")
    return f"{float(number):g} {unit}"


def _trade_off(
    report: Report,
    markers: Sequence[Marker],
    scale: Callable[[float], float],
    inverse: Callable[[float], float],
    origin: float | None = None,
) -> go.Figure:
    """Markers on an axis of ``scale``; those that would cover each other become one, in their middle."""
    path = [marker for marker in markers if marker.step.startswith(("student", "compress/"))]
    groups = _touching(markers, scale, origin)
    labels = [_ranges([marker.number for marker in group]) for group in groups]
    figure = go.Figure()
    figure.add_scatter(
        x=[marker.x for marker in path],
        y=[marker.y for marker in path],
        mode="lines",
        line={"color": LINE, "width": 2},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=[inverse(_mean([scale(marker.x) for marker in group])) for group in groups],
        y=[_mean([marker.y for marker in group]) for group in groups],
        text=labels,
        hovertext=["<br>".join(marker.hover for marker in group) for group in groups],
        mode="markers+text",
        marker={
            "size": [20 + 4 * len(label) for label in labels],
            "color": [colour(group[0].step) for group in groups],
            "opacity": 1,
            "line": {"color": "white", "width": 2},
        },
        textfont={"color": "white", "size": 11},
        hoverinfo="text",
    )
    return styled(figure, report.unit(report.monitor), entries=0).update_layout(showlegend=False)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _ranges(numbers: Sequence[int]) -> str:
    """[3, 5, 6, 7] is "3, 5-7"."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _touching(markers: Sequence[Marker], scale: Callable[[float], float], origin: float | None) -> list[list[Marker]]:
    """Markers that would cover each other, together; the axis begins at ``origin``, or where the markers do."""
    begin = [] if origin is None else [origin]
    width, height = (
        max(values, default=0) - min(values, default=0) or 1
        for values in ([scale(m.x) for m in markers] + begin, [m.y for m in markers])
    )
    groups: list[list[Marker]] = []
    for marker in markers:
        for group in groups:
            across, along = (scale(marker.x) - scale(group[0].x)) / width, (marker.y - group[0].y) / height
            if abs(across) < TOUCHING and abs(along) < TOUCHING:
                group.append(marker)
                break
        else:
            groups.append([marker])
    return groups
