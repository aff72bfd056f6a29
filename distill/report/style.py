"""The look of all pictures of a report."""

from plotly import graph_objects as go

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
HEIGHT, ENTRY = 340, 20  # pixels: of a picture, of an entry of its legend


def colour(step: str) -> str:
    """One colour per kind of step, here and in the table."""
    return COLOURS.get(step.partition("/")[0], INK)


def styled(figure: go.Figure, unit: str, entries: int | None = None) -> go.Figure:
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
