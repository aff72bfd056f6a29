"""A comparison of codecs as a table of comma-separated values, and as a page with a heat map that opens offline."""

import csv
import io
from collections.abc import Sequence
from dataclasses import fields
from html import escape

from distill.measure.coding import Row
from distill.report.html import STYLE

HEAT = """
.heat td { text-align: center; border: 1px solid var(--paper); padding: 10px 14px; min-width: 84px }
.heat th { padding: 6px 12px; text-align: center }
.heat td:first-child { text-align: left }
"""
HEADERS = (
    "codec",
    "bits per weight",
    "ratio to float32",
    "ratio to CSC, 4-bit relative",
    "over entropy",
    "encode MB/s",
    "decode MB/s",
)


def cells(row: Row) -> list[str]:
    """The row as text, in the order of HEADERS."""
    return [
        row.name,
        f"{row.bits_per_weight:.4f}",
        f"{row.ratio:.2f}",
        f"{row.ratio_to_csc:.3f}",
        f"{100 * row.over_entropy:+.2f} %",
        f"{row.encode_mbps:.1f}",
        f"{row.decode_mbps:.1f}",
    ]


def table(rows: Sequence[Row]) -> str:
    """Comma-separated values with full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Row)])
    writer.writerows([row.name, *(getattr(row, field.name) for field in fields(Row)[1:])] for row in rows)
    return text.getvalue()


def page(rows: Sequence[Row], title: str) -> str:
    """The whole comparison as HTML that needs no network: a heat map of bits per weight, and every figure."""
    grids = "".join(_grid(rows, before) for before in sorted({row.stages[:-2] for row in rows if len(row.stages) > 1}))
    lines = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells(row))}</tr>"
        for row in sorted(rows, key=lambda row: row.bits_per_weight)
    )
    heads = "".join(f"<th>{header}</th>" for header in HEADERS)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · distill</title>
<style>{STYLE}{HEAT}</style>
</head>
<body>
<main>
<div class="brand">distill codecs</div>
<h1>{escape(title)}</h1>
{grids}
<div class="card"><div class="scroll"><table><tr>{heads}</tr>{lines}</table></div></div>
</main>
</body>
</html>
"""


def _grid(rows: Sequence[Row], before: tuple[str, ...]) -> str:
    """Bits per weight of all pairs after the same first stages."""
    values = {row.stages[-2:]: row for row in rows if len(row.stages) > 1 and row.stages[:-2] == before}
    firsts, seconds = (list(dict.fromkeys(pair[at] for pair in values)) for at in (0, 1))
    sizes = [row.bits_per_weight for row in rows]
    heads = "".join(f"<th>{escape(second)}</th>" for second in seconds)
    lines = "".join(
        f"<tr><td>{escape(first)}</td>{''.join(_cell(values.get((first, second)), sizes) for second in seconds)}</tr>"
        for first in firsts
    )
    what = f"Bits per weight after {' + '.join(before)}" if before else "Bits per weight"
    return (
        f'<div class="card"><h2>{escape(what)}</h2><p>Rows: first stage; columns: second.</p><div class="scroll">'
        f'<table class="heat"><tr><th></th>{heads}</tr>{lines}</table></div></div>'
    )


def _cell(row: Row | None, sizes: Sequence[float]) -> str:
    if row is None:
        return "<td></td>"
    low, high = min(sizes), max(sizes)
    heat = (row.bits_per_weight - low) / (high - low or 1)
    # Green is short, red is long; both light enough for dark text.
    colour = f"hsl({round(140 * (1 - heat))} 70% 82%)"
    hover = "; ".join(f"{header} {cell}" for header, cell in zip(HEADERS, cells(row), strict=True))
    return f'<td style="background:{colour}" title="{escape(hover)}">{row.bits_per_weight:.3f}</td>'
