"""What a run found out: one table in the terminal, report.json for programs, report.html for people."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from distill.files.atomic import replacing
from distill.report.content import Guess, Report
from distill.report.headline import sentence, warnings
from distill.report.html import page
from distill.report.rows import Column, coded_note, columns, legend, timing_note
from distill.report.teacher_share import teacher_note, teacher_share

__all__ = ["Guess", "Report", "notes", "table", "warnings", "write"]

NEWLINE = "\n"  # Python 3.11 has no backslash inside the braces of an f-string


def write(folder: Path, report: Report) -> None:
    """Write ``report.json`` and ``report.html`` into ``folder``; each appears whole or not at all.

    Raises:
        DistillError: the folder cannot be written to.
    """
    for name, text in (("report.json", json.dumps(as_json(report), indent=2)), ("report.html", page(report))):
        with replacing(folder / name) as part:
            part.write_text(text, encoding="utf-8")


def as_json(report: Report) -> dict[str, Any]:
    """The content of report.json."""
    return {
        "recipe": report.recipe,
        "monitor": report.monitor,
        "mode": report.mode,
        "units": dict(report.units),
        "warnings": warnings(report),
        "guess": dict(report.guess.metrics),
        "steps": [step.to_json() for step in report.steps],
        "teacher": share.to_json() if (share := teacher_share(report)) else None,
        "coded_bytes": dict(report.coded_bytes),
        "latency": {"quartiles_ms": report.quartiles_ms, "waited": report.waited, "beyond": dict(report.beyond)},
        "classes": list(report.classes),
        "figures": dict(report.figures),
        "curves": {step: [dict(row) for row in rows] for step, rows in report.curves.items()},
        "versions": dict(report.versions),
    }


def notes(report: Report) -> list[str]:
    """What is said below the table: how latency was measured, what the teacher cost, and which files are coded."""
    return [line for line in (timing_note(report), coded_note(report), teacher_note(report)) if line]


def table(report: Report, width: int | None = None) -> Table:
    """Every step with its cost and quality, for a terminal.

    Args:
        report: what to show.
        width: of the terminal, in characters; columns that matter least are left out until the others fit.
    """
    shown = columns(report)
    while width and _width(_table(report, shown)) > width and (rank := max(one.rank for one in shown)):
        last = [one for one in shown if one.rank == rank][-1]
        shown = [one for one in shown if one is not last]
    return _table(report, shown)


def _table(report: Report, shown: Sequence[Column]) -> Table:
    caption = NEWLINE.join(line for line in (legend(report), sentence(report)) if line)
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, caption=caption)
    for column in shown:
        detail = column.detail.replace(", ms", f",{NEWLINE}ms")
        header = f"{column.name.replace(' ', NEWLINE)}{NEWLINE}{detail}".strip()
        drawn.add_column(header, justify="right" if drawn.columns else "left", vertical="bottom", overflow="fold")
    for step in report.steps:
        drawn.add_row(*(one.cell(step) for one in shown), style="bold" if step is report.shipped else None)
    return drawn


def _width(drawn: Table) -> int:
    """Characters that a table needs without breaking a cell."""
    wide = Console(width=1000)
    return wide.measure(drawn).maximum
