"""Measurements as JSON lines, which merge by concatenation, and tables in pages that are made from them."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

RESULTS = Path(__file__).parent / "results"


def read(file: Path, identity: Iterable[str]) -> list[Row]:
    """The rows of a file, the last one of each identity: a measurement done again replaces the one before.

    Args:
        file: of JSON lines; none is as good as an empty one.
        identity: names of the fields that tell measurements apart.
    """
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    rows = [json.loads(line) for line in lines if line.strip()]
    fields = tuple(identity)
    return list({tuple(row[field] for field in fields): row for row in rows}.values())


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
