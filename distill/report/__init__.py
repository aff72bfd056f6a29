"""What a run found out: one table in the terminal, report.json for programs, report.html for people."""

import json
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from distill.atomic import replacing
from distill.report.html import page
from distill.report.rows import Report, cells, headers, sentence

__all__ = ["Report", "table", "write"]

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
        "steps": [step.to_json() for step in report.steps],
        "classes": list(report.classes),
        "confusion": [list(row) for row in report.confusion],
        "curves": {step: [dict(row) for row in rows] for step, rows in report.curves.items()},
        "versions": dict(report.versions),
    }


def table(report: Report) -> Table:
    """Every step with its cost and quality, for a terminal of 100 columns."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, caption=sentence(report))
    for upper, lower in headers(report):
        header = f"{upper.replace(' ', NEWLINE)}{NEWLINE}{lower}".strip()
        shown.add_column(header, justify="right" if shown.columns else "left", vertical="bottom", overflow="fold")
    for step in report.steps:
        shown.add_row(*cells(report, step), style="bold" if step is report.final else None)
    return shown
