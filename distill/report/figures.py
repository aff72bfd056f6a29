"""The figures of a task: a matrix as a heat map, a vector as bars; named numbers, bars with names."""

from collections.abc import Mapping, Sequence

from plotly import graph_objects as go

from distill.report.content import Report
from distill.report.style import COLOURS, styled

MOST_NAMES, MOST_COUNTS = 30, 15  # classes of a matrix that can be named, and counted, legibly


def matrix(report: Report, values: Sequence[Sequence[float]]) -> go.Figure:
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
    figure = styled(go.Figure(heatmap), "").update_layout(height=560)
    # A category axis names every second one where all do not fit side by side.
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category", dtick=1)
    figure.update_xaxes(showgrid=False, side="bottom", type="category", dtick=1)
    if len(values) > MOST_NAMES:
        figure.update_xaxes(showticklabels=False).update_yaxes(showticklabels=False)
    return figure


def bars(report: Report, name: str, values: Sequence[float]) -> go.Figure:
    """One bar for each entry, in the unit of that name."""
    heights = [report.scaled(name, value) for value in values]
    drawn = go.Bar(x=_names(report, len(values)), y=heights, marker={"color": COLOURS["student"]})
    figure = styled(go.Figure(drawn), report.unit(name)).update_xaxes(type="category", dtick=1)
    return figure.update_xaxes(showticklabels=len(values) <= MOST_NAMES)


def named_bars(values: Mapping[str, float]) -> go.Figure:
    """One bar below the other, each with its name."""
    names = [*values][::-1]
    drawn = go.Bar(y=names, x=[values[name] for name in names], orientation="h", marker={"color": COLOURS["student"]})
    figure = styled(go.Figure(drawn), "").update_layout(height=100 + 20 * len(names))
    return figure.update_yaxes(type="category", dtick=1, automargin=True, title="").update_xaxes(rangemode="tozero")


def _names(report: Report, size: int) -> list[str]:
    return list(report.classes) if len(report.classes) == size else [str(index) for index in range(size)]
