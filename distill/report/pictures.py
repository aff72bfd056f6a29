"""The report's pictures: what quality costs, how training went, and the figures of the task."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

from distill.report.content import Report
from distill.report.figures import bars, matrix, named_bars
from distill.report.rows import spelled, title
from distill.report.style import LINE, colour, styled
from distill.report.trade_off import by_latency, by_size, latency

DASHES = ("solid", "dot", "dash", "dashdot", "longdash", "longdashdot")
TOTAL = "train/loss"


class Picture(NamedTuple):
    """A drawing and what stands above it."""

    title: str
    note: str
    figure: go.Figure


def script() -> str:
    """plotly.js itself, so that the page needs no network."""
    return get_plotlyjs()


def pictures(report: Report) -> Iterator[Picture]:
    """Every picture that there is data for."""
    better = " Lower is better." if report.mode == "min" else ""
    if metric := report.shared(report.final):
        what = _begun(spelled(metric))
        note = f"Numbers as in the table.{better}"
        yield Picture(f"{what} against size on disk", note, by_size(report, metric))
        if any(latency(report, step) for step in report.steps):
            size = "One image" if report.batch_sizes[0] == 1 else f"A batch of {report.batch_sizes[0]}"
            note = f"{size} in ONNX Runtime on one thread. Numbers as in the table.{better}"
            yield Picture(f"{what} against latency", note, by_latency(report, metric))
    note = "Click a name to show or hide its line, double-click to see it alone."
    for metric in report.metrics:
        if (figure := _validation(report, metric)).data:
            yield Picture(f"Validation {spelled(metric)} by epoch", note, figure)
    if (figure := _losses(report)).data:
        yield Picture("Training losses by epoch", "Choose a term of the loss in the menu.", figure)
    for name, values in report.figures.items():
        if values:
            yield _figure(report, name, values)


def _figure(report: Report, name: str, values: Sequence[Any] | Mapping[str, float]) -> Picture:
    note = "Of the final network on the test split."
    if isinstance(values, Mapping):
        return Picture(_begun(spelled(name)), note, named_bars(values))
    if not isinstance(values[0], Sequence):
        return Picture(_begun(spelled(name)), note, bars(report, name, values))
    if name == "confusion":
        note = "Row: true class. Column: the final network's class on the test split. Shade: share of the row."
    return Picture(_begun(spelled(name)), note, matrix(report, values))


def _begun(text: str) -> str:
    return text[:1].upper() + text[1:]


def _validation(report: Report, metric: str) -> go.Figure:
    figure, name = go.Figure(), f"val/{metric}"
    scale = lambda value: report.scaled(metric, value)  # noqa: E731
    lines = _lines(report)
    for step, rows in report.curves.items():
        _add_curve(figure, rows, name, scale, name=title(step, report), line=lines[step])
    return styled(figure, report.unit(metric)).update_xaxes(**_epochs(figure))


def _losses(report: Report) -> go.Figure:
    """The total of every step; a menu shows one of its terms instead."""
    figure = go.Figure()
    shown: list[str] = []
    lines = _lines(report)
    for step, rows in report.curves.items():
        terms = sorted({name for row in rows for name in row if name.startswith("train/")} - {TOTAL})
        for name in (TOTAL, *terms):
            label = f"{title(step, report)}: {name.removeprefix('train/')}"
            before = len(figure.data)
            _add_curve(figure, rows, name, float, name=label, line=lines[step], visible=name == TOTAL)
            shown += [name] * (len(figure.data) - before)
    choices = list(dict.fromkeys(shown))
    buttons = [
        {"label": name.removeprefix("train/"), "method": "restyle", "args": ["visible", [one == name for one in shown]]}
        for name in choices
    ]
    figure = styled(figure, "", entries=shown.count(TOTAL)).update_xaxes(**_epochs(figure))
    if len(choices) > 1:
        menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "bgcolor": "white"}
        figure.update_layout(updatemenus=[{**menu, "bordercolor": LINE}], margin={"t": 48})
    return figure


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


def _lines(report: Report) -> dict[str, dict[str, Any]]:
    """A line for each step that has a curve: its colour, and dashes that tell it from others of that colour."""
    before: Counter[str] = Counter()
    lines = {}
    for step in report.curves:
        dash = DASHES[before[colour(step)] % len(DASHES)]
        lines[step] = {"color": colour(step), "dash": dash, "width": 2}
        before[colour(step)] += 1
    return lines
