"""The report's pictures: what quality costs, how training went, what is mistaken for what."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, groupby
from typing import Any, NamedTuple

from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

from distill.artifact.step import Step
from distill.report.rows import Report, count, milliseconds, score, scored, title

COLOURS = {
    "teacher": "#64748b",
    "teachers": "#64748b",
    "assistant": "#0891b2",
    "alone": "#f59e0b",
    "student": "#2563eb",
    "compress": "#7c3aed",
    "export": "#059669",
}
INK, SOFT, LINE = "#0f172a", "#64748b", "#e2e8f0"
DASHES = ("solid", "dot", "dash", "dashdot", "longdash", "longdashdot")
TOUCHING = 0.07  # of the axis: markers closer than this in both directions become one
MOST_NAMES, MOST_COUNTS = 30, 15  # classes of a confusion matrix that can be named, and counted, legibly


class Picture(NamedTuple):
    """A drawing and what stands above it."""

    title: str
    note: str
    figure: go.Figure


class Marker(NamedTuple):
    """A step in a trade-off picture; ``number`` is its row in the table."""

    number: int
    step: str
    x: float
    y: float
    hover: str


def script() -> str:
    """plotly.js itself, so that the page needs no network."""
    return get_plotlyjs()


def colour(step: str) -> str:
    """One colour per kind of step, here and in the table."""
    return COLOURS.get(step.partition("/")[0], INK)


def pictures(report: Report) -> Iterator[Picture]:
    """Every picture that there is data for."""
    if metric := scored(report, report.final):
        what = metric.replace("/", " ").capitalize()
        note = "Numbers as in the table."
        yield Picture(f"{what} against size on disk", note, _by_size(report, metric))
        if any("batch1" in step.latency_ms for step in report.steps):
            note = "One image in ONNX Runtime on one thread. Numbers as in the table."
            yield Picture(f"{what} against latency", note, _by_latency(report, metric))
    note = "Click a name to show or hide its line, double-click to see it alone."
    if (figure := _validation(report)).data:
        yield Picture(f"Validation {report.metric} by epoch", note, figure)
    if (figure := _losses(report)).data:
        yield Picture("Training losses by epoch", note, figure)
    if report.confusion:
        note = "Row: true class. Column: the final student's answer on the test split. Shade: share of the row."
        yield Picture("Confusion", note, _confusion(report))


def _by_size(report: Report, metric: str) -> go.Figure:
    markers = _markers(report, metric, lambda step: step.bytes, lambda step: count(step.bytes, "B"))
    figure = _trade_off(report, markers, math.log)
    return figure.update_xaxes(type="log", tickformat="~s", ticksuffix="B", dtick="D2")


def _by_latency(report: Report, metric: str) -> go.Figure:
    markers = _markers(
        report,
        metric,
        lambda step: step.latency_ms.get("batch1"),
        lambda step: f"{milliseconds(step.latency_ms.get('batch1'))} ms",
    )
    return _trade_off(report, markers, float).update_xaxes(rangemode="tozero", ticksuffix=" ms")


def _markers(
    report: Report, metric: str, cost: Callable[[Step], float | None], shown: Callable[[Step], str]
) -> list[Marker]:
    unit = " %" if report.percent else ""
    return [
        Marker(
            number,
            step.step,
            x,
            _scaled(report, step.metrics[metric]),
            f"<b>{title(step.step, report)}</b><br>{score(report, step.metrics[metric])}{unit}, {shown(step)}",
        )
        for number, step in enumerate(report.steps, start=1)
        if metric in step.metrics and (x := cost(step))
    ]


def _trade_off(report: Report, markers: Sequence[Marker], scale: Callable[[float], float]) -> go.Figure:
    path = [marker for marker in markers if marker.step.startswith(("student", "compress/"))]
    groups = _touching(markers, scale)
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
        x=[group[0].x for group in groups],
        y=[group[0].y for group in groups],
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
    return _styled(figure, report).update_layout(showlegend=False)


def _ranges(numbers: Sequence[int]) -> str:
    """[3, 5, 6, 7] is "3, 5-7"."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _touching(markers: Sequence[Marker], scale: Callable[[float], float]) -> list[list[Marker]]:
    """Markers that would cover each other, together."""
    width, height = (
        max(values, default=0) - min(values, default=0) or 1
        for values in ([scale(m.x) for m in markers], [m.y for m in markers])
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


def _validation(report: Report) -> go.Figure:
    figure, name = go.Figure(), f"val/{report.metric}"
    for step, rows in report.curves.items():
        _add_curve(figure, rows, name, lambda value: _scaled(report, value), name=title(step, report), line=_line(step))
    return _styled(figure, report)


def _losses(report: Report) -> go.Figure:
    """The total of every step; its terms are there to be clicked on."""
    figure = go.Figure()
    for step, rows in report.curves.items():
        terms = sorted({name for row in rows for name in row if name.startswith("train/")} - {"train/loss"})
        for name, dash in zip(["train/loss", *terms], cycle(DASHES), strict=False):
            label = f"{title(step, report)}: {name.removeprefix('train/')}"
            visible = True if name == "train/loss" else "legendonly"
            _add_curve(figure, rows, name, float, name=label, line=_line(step, dash), visible=visible)
    return _styled(figure, report, percent=False)


def _add_curve(
    figure: go.Figure, rows: Sequence[Mapping[str, float]], metric: str, scale: Callable[[float], float], **style: Any
) -> None:
    points = [(row["epoch"], scale(row[metric])) for row in rows if metric in row]
    if points:
        epochs, values = zip(*points, strict=True)
        figure.add_scatter(x=epochs, y=values, mode="lines" if len(points) > 1 else "markers", showlegend=True, **style)


def _line(step: str, dash: str = "solid") -> dict[str, Any]:
    return {"color": colour(step), "dash": dash, "width": 2}


def _confusion(report: Report) -> go.Figure:
    totals = [sum(row) or 1 for row in report.confusion]
    shares = [[value / total for value in row] for row, total in zip(report.confusion, totals, strict=True)]
    classes = list(report.classes) or [str(index) for index in range(len(totals))]
    few = len(totals) <= MOST_COUNTS
    gap = 1 if few else 0
    heatmap = go.Heatmap(
        z=shares,
        x=classes,
        y=classes,
        customdata=report.confusion,
        text=report.confusion if few else None,
        texttemplate="%{text}" if few else None,
        hovertemplate="%{y} taken for %{x}: %{customdata}<extra></extra>",
        colorscale=[(0, "#ffffff"), (0.02, "#eff6ff"), (0.2, "#bfdbfe"), (1, "#2563eb")],
        zmin=0,
        zmax=1,
        showscale=False,
        xgap=gap,
        ygap=gap,
    )
    figure = _styled(go.Figure(heatmap), report, percent=False).update_layout(height=520)
    figure.update_yaxes(autorange="reversed", showgrid=False).update_xaxes(showgrid=False, side="bottom")
    if len(totals) > MOST_NAMES:
        figure.update_xaxes(showticklabels=False).update_yaxes(showticklabels=False)
    return figure


def _scaled(report: Report, value: float) -> float:
    return 100 * value if report.percent else value


def _styled(figure: go.Figure, report: Report, *, percent: bool = True) -> go.Figure:
    figure.update_layout(
        template="none",
        height=360,
        margin={"l": 52, "r": 12, "t": 16, "b": 44},
        font={"family": "system-ui, sans-serif", "size": 12, "color": INK},
        legend={"orientation": "h", "y": -0.1, "yanchor": "top", "x": 0},
        hoverlabel={"bgcolor": "white", "bordercolor": LINE, "font": {"color": INK}},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    figure.update_xaxes(
        ticks="", gridcolor=LINE, linecolor=LINE, zeroline=False, tickfont={"color": SOFT}, automargin=True
    )
    figure.update_yaxes(ticks="", gridcolor=LINE, zeroline=False, tickfont={"color": SOFT}, automargin=True)
    return figure.update_yaxes(ticksuffix=" %") if percent and report.percent else figure
