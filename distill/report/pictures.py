"""The report's pictures: what quality costs, how training went, and the figures of the task."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, groupby
from typing import Any, NamedTuple

from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

from distill.artifact.step import Step
from distill.report.content import Report
from distill.report.rows import count, milliseconds, score, title

COLOURS = {
    "teacher": "#64748b",
    "teachers": "#64748b",
    "assistant": "#0891b2",
    "baseline": "#f59e0b",
    "student": "#2563eb",
    "compress": "#7c3aed",
    "export": "#059669",
}
INK, SOFT, LINE = "#0f172a", "#64748b", "#e2e8f0"
DASHES = ("solid", "dot", "dash", "dashdot", "longdash", "longdashdot")
TOUCHING = 0.09  # of the axis: markers closer than this in both directions become one
MOST_NAMES, MOST_COUNTS = 30, 15  # classes of a matrix that can be named, and counted, legibly
HEIGHT, ENTRY = 340, 20  # pixels: of a picture, of an entry of its legend
TOTAL = "train/loss"


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
    better = " Lower is better." if report.mode == "min" else ""
    if metric := report.shared(report.final):
        what = _words(metric).capitalize()
        note = f"Numbers as in the table.{better}"
        yield Picture(f"{what} against size on disk", note, _by_size(report, metric))
        if any(_latency(report, step) for step in report.steps):
            size = "One image" if report.batch_sizes[0] == 1 else f"A batch of {report.batch_sizes[0]}"
            note = f"{size} in ONNX Runtime on one thread. Numbers as in the table.{better}"
            yield Picture(f"{what} against latency", note, _by_latency(report, metric))
    note = "Click a name to show or hide its line, double-click to see it alone."
    for metric in report.metrics:
        if (figure := _validation(report, metric)).data:
            yield Picture(f"Validation {_words(metric)} by epoch", note, figure)
    if (figure := _losses(report)).data:
        yield Picture("Training losses by epoch", "Choose a term of the loss in the menu.", figure)
    for name, values in report.figures.items():
        if values and isinstance(values[0], Sequence):
            note = "Of the final network on the test split."
            if name == "confusion":
                note = "Row: true class. Column: the final network's class on the test split. Shade: share of the row."
            yield Picture(_words(name).capitalize(), note, _matrix(report, values))
        elif values:
            yield Picture(_words(name).capitalize(), "Of the final network on the test split.", _bars(report, values))


def _words(name: str) -> str:
    return name.replace("/", " ").replace("_", " ")


def _latency(report: Report, step: Step) -> float | None:
    return step.latency_ms.get(f"batch{report.batch_sizes[0]}")


def _by_size(report: Report, metric: str) -> go.Figure:
    markers = _markers(report, metric, lambda step: step.bytes, lambda step: count(step.bytes, "B"))
    figure = _trade_off(report, markers, math.log, math.exp)
    return figure.update_xaxes(type="log", tickformat="~s", ticksuffix="B", dtick="D2")


def _by_latency(report: Report, metric: str) -> go.Figure:
    markers = _markers(
        report,
        metric,
        lambda step: _latency(report, step),
        lambda step: f"{milliseconds(_latency(report, step))} ms",
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
    return _styled(figure, report.unit(report.monitor), entries=0).update_layout(showlegend=False)


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


def _validation(report: Report, metric: str) -> go.Figure:
    figure, name = go.Figure(), f"val/{metric}"
    for step, rows in report.curves.items():
        scale = lambda value: report.scaled(metric, value)  # noqa: E731
        _add_curve(figure, rows, name, scale, name=title(step, report), line=_line(step))
    return _styled(figure, report.unit(metric)).update_xaxes(**_epochs(figure))


def _losses(report: Report) -> go.Figure:
    """The total of every step; a menu shows one of its terms instead."""
    figure = go.Figure()
    shown: list[str] = []
    for step, rows in report.curves.items():
        terms = sorted({name for row in rows for name in row if name.startswith("train/")} - {TOTAL})
        for name, dash in zip([TOTAL, *terms], cycle(DASHES), strict=False):
            label = f"{title(step, report)}: {name.removeprefix('train/')}"
            before = len(figure.data)
            _add_curve(figure, rows, name, float, name=label, line=_line(step, dash), visible=name == TOTAL)
            shown += [name] * (len(figure.data) - before)
    choices = list(dict.fromkeys(shown))
    buttons = [
        {"label": name.removeprefix("train/"), "method": "restyle", "args": ["visible", [one == name for one in shown]]}
        for name in choices
    ]
    styled = _styled(figure, "", entries=shown.count(TOTAL)).update_xaxes(**_epochs(figure))
    if len(choices) > 1:
        menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "bgcolor": "white"}
        styled.update_layout(updatemenus=[{**menu, "bordercolor": LINE}], margin={"t": 48})
    return styled


def _add_curve(
    figure: go.Figure, rows: Sequence[Mapping[str, float]], metric: str, scale: Callable[[float], float], **style: Any
) -> None:
    points = [(row["epoch"], scale(row[metric])) for row in rows if metric in row]
    if points:
        epochs, values = zip(*points, strict=True)
        figure.add_scatter(x=epochs, y=values, mode="lines" if len(points) > 1 else "markers", showlegend=True, **style)


def _epochs(figure: go.Figure) -> dict[str, Any]:
    """Whole numbers on the axis of epochs."""
    last = max((max(line.x) for line in figure.data), default=1)
    return {"dtick": 1 if last <= 10 else None, "tickformat": "d"}


def _line(step: str, dash: str = "solid") -> dict[str, Any]:
    return {"color": colour(step), "dash": dash, "width": 2}


def _matrix(report: Report, values: Sequence[Sequence[float]]) -> go.Figure:
    """A heat map, each row shaded by its shares."""
    totals = [sum(row) or 1 for row in values]
    few = max(len(values), len(values[0])) <= MOST_COUNTS
    gap = 1 if few else 0
    rows, columns = (_names(report, size) for size in (len(values), len(values[0])))
    heatmap = go.Heatmap(
        z=[[value / total for value in row] for row, total in zip(values, totals, strict=True)],
        x=columns,
        y=rows,
        customdata=values,
        text=values if few else None,
        texttemplate="%{text}" if few else None,
        hovertemplate="%{y} taken for %{x}: %{customdata}<extra></extra>",
        colorscale=[(0, "#ffffff"), (0.02, "#eff6ff"), (0.2, "#bfdbfe"), (1, "#2563eb")],
        zmin=0,
        zmax=1,
        showscale=False,
        xgap=gap,
        ygap=gap,
    )
    figure = _styled(go.Figure(heatmap), "").update_layout(height=560)
    # A category axis names every second one where all do not fit side by side.
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category", dtick=1)
    figure.update_xaxes(showgrid=False, side="bottom", type="category", dtick=1)
    if len(values) > MOST_NAMES:
        figure.update_xaxes(showticklabels=False).update_yaxes(showticklabels=False)
    return figure


def _bars(report: Report, values: Sequence[float]) -> go.Figure:
    bars = go.Bar(x=_names(report, len(values)), y=list(values), marker={"color": COLOURS["student"]})
    figure = _styled(go.Figure(bars), "").update_xaxes(type="category", dtick=1)
    return figure.update_xaxes(showticklabels=len(values) <= MOST_NAMES)


def _names(report: Report, size: int) -> list[str]:
    return list(report.classes) if len(report.classes) == size else [str(index) for index in range(size)]


def _styled(figure: go.Figure, unit: str, entries: int | None = None) -> go.Figure:
    """The look of all pictures; they grow with their legends.

    Args:
        figure: changed in place.
        unit: of the vertical axis.
        entries: of the legend; without, one for every curve.
    """
    entries = len(figure.data) if entries is None else entries
    figure.update_layout(
        template="none",
        height=HEIGHT + ENTRY * entries,
        margin={"l": 52, "r": 12, "t": 16, "b": 44 + ENTRY * entries},
        font={"family": "system-ui, sans-serif", "size": 12, "color": INK},
        legend={"orientation": "h", "y": -0.12, "yanchor": "top", "x": 0},
        hoverlabel={"bgcolor": "white", "bordercolor": LINE, "font": {"color": INK}},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    figure.update_xaxes(
        ticks="", gridcolor=LINE, linecolor=LINE, zeroline=False, tickfont={"color": SOFT}, automargin=True
    )
    figure.update_yaxes(ticks="", gridcolor=LINE, zeroline=False, tickfont={"color": SOFT}, automargin=True)
    return figure.update_yaxes(ticksuffix=unit) if unit else figure
