"""Measurements as JSON lines, which merge by concatenation, and tables in pages that are made from them.

A benchmark measures what is not in its file of results yet. To measure again, give it another file (``--results``) and
append that to the first: of measurements of the same thing the last one counts.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks._page import measured_here

Row = Mapping[str, Any]

RESULTS = Path(__file__).parent / "results"


def read(file: Path, identity: Iterable[str]) -> list[Row]:
    """The rows of a file, the last one of each identity: a measurement done again replaces the one before.

    Args:
        file: of JSON lines; none is as good as an empty one.
        identity: names of the fields that tell measurements apart; a row need not have all of them.
    """
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    rows = [json.loads(line) for line in lines if line.strip()]
    fields = tuple(identity)
    return list({json.dumps([row.get(field) for field in fields]): row for row in rows}.values())


def kept(file: Path, named: Row, measure: Callable[[], Row]) -> Row:
    """A measurement from the file; if it is not there, it is made now and added with its date and machine.

    Args:
        file: of JSON lines.
        named: the fields that tell measurements apart.
        measure: returns the other fields.
    """
    for row in reversed(read(file, named)):
        if all(row.get(field) == value for field, value in named.items()):
            return row
    row = {**named, **measure(), "measured": measured_here()}
    append(file, row)
    return row


def append(file: Path, row: Row) -> None:
    """Add a measurement."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(row) + "\n")


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    columns = list(header)
    lines = [columns, ["---"] * len(columns), *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def measured(rows: Iterable[Row]) -> str:
    """Dates and machines of measurements."""
    return "; ".join(dict.fromkeys(row["measured"] for row in rows))


def with_table(page: str, name: str, text: str) -> str:
    """A page with ``text`` between its markers ``<!-- results: NAME -->`` and ``<!-- end -->``.

    Raises:
        ValueError: the page has no such markers.
    """
    marked = re.compile(rf"(<!-- results: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    made, found = marked.subn(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", page)
    if not found:
        raise ValueError(f"no '<!-- results: {name} -->' ... '<!-- end -->' on the page")
    return made
