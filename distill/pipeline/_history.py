"""The rows that a run has logged so far, kept in its folder for the W&B run that goes on after it was stopped.

W&B does not append to an offline run: one that goes on starts a folder of its own, under the same id, and uploading
both would leave the later half alone. So the new folder gets all earlier rows too, and takes the place of the old one.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One point of a step's curves."""

    prefix: str
    metrics: dict[str, float]
    step: int | None


class History:
    """A file with one line per row.

    Args:
        file: made with the first row.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def add(self, prefix: str, metrics: Mapping[str, float], step: int | None) -> None:
        """Append a row."""
        with self.file.open("a") as lines:
            # The line break comes first: a process that was killed may have left half a line.
            lines.write("\n" + json.dumps([prefix, dict(metrics), step]))

    def __iter__(self) -> Iterator[Row]:
        """Every row once: of an epoch that was repeated after a kill, the last row counts."""
        lines = self.file.read_text(errors="replace").splitlines() if self.file.is_file() else []
        rows = [row for row in map(_parsed, lines) if row]
        return iter({(row.prefix, row.step, *row.metrics): row for row in rows}.values())


def _parsed(line: str) -> Row | None:
    """A row, or None for a line that is none."""
    try:
        prefix, metrics, step = json.loads(line)
        return Row(str(prefix), dict(metrics), step)
    except (TypeError, ValueError):
        return None
