"""Measurements as JSON lines, which merge by concatenation, and tables in pages that are made from them.

A benchmark measures what is not in its file of results yet. To measure again, give it another file (``--results``) and
append that to the first: of measurements of the same thing the last one counts.
"""

import fcntl
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from benchmarks._page import measured_here
from distill.errors import UserError

Row = Mapping[str, Any]

RESULTS = Path(__file__).parent / "results"


def read(file: Path, identity: Iterable[str]) -> list[Row]:
    """The rows of a file, the last one of each identity: a measurement done again replaces the one before.

    Args:
        file: of JSON lines; none is as good as an empty one.
        identity: names of the fields that tell measurements apart; a row need not have all of them.

    Raises:
        UserError: a line is damaged; of the last one, which a process that was killed may have left, it is only said.
    """
    fields = tuple(identity)
    return list({json.dumps([row.get(field) for field in fields]): row for row in _rows(file)}.values())


def _rows(file: Path) -> list[Row]:
    lines = file.read_bytes().split(b"\n") if file.exists() else []
    rows = {number: _row(line) for number, line in enumerate(lines, start=1) if line.strip()}
    for number in (number for number, row in rows.items() if row is None):
        if number < len(lines):
            raise UserError(f"line {number} of {file} is no measurement: mend or delete it")
        sys.stderr.write(f"{file}: the last line is cut off and does not count; the next measurement replaces it\n")
    return [row for row in rows.values() if row is not None]


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


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


def append(file: Path, *rows: Row) -> None:
    """Add measurements, all of them at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b") as lines:
        with suppress(OSError):  # on file systems without locks a measurement is still worth more than a lock
            fcntl.flock(lines, fcntl.LOCK_EX)  # what looks cut off may be what another process is writing
        _end_last_line(lines)
        lines.write("".join(json.dumps(row) + "\n" for row in rows).encode())


def _end_last_line(lines: IO[bytes]) -> None:
    """What is written next begins on a line of its own; a line that is cut off is removed."""
    lines.seek(0)
    whole = lines.read()
    last = whole.rpartition(b"\n")[2]
    if _row(last) is None:
        lines.truncate(len(whole) - len(last))
    else:
        lines.write(b"\n")


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

    A marker that ends its line has the text in lines of its own; any other has it within the line, as cells need it.

    Raises:
        ValueError: the page has no such markers.
    """
    marked = re.compile(rf"(<!-- results: {re.escape(name)} -->)(\n?).*?(<!-- end -->)", re.DOTALL)
    made, found = marked.subn(lambda match: match[2].join([match[1], "", text, "", match[3]]), page)
    if not found:
        raise ValueError(f"no '<!-- results: {name} -->' ... '<!-- end -->' on the page")
    return made
