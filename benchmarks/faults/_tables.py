"""What was found, as Markdown."""

from collections.abc import Mapping, Sequence

from benchmarks._results import RESULTS, Row, table

FILE = RESULTS / "faults.jsonl"
IDENTITY = ("subject", "seed")


def tables(rows: Sequence[Row]) -> Mapping[str, str]:
    """The table of cases and what was measured beside them; none without rows."""
    damaged = [row for row in rows if row["subject"] != "kills"]
    lines = [[row["subject"], kind, *_counts(found)] for row in damaged for kind, found in row["outcomes"].items()]
    parts = [table(["subject", "kind", "cases", "right", "named error", "else"], lines)] if lines else []
    notes = [_killed(row) if row["subject"] == "kills" else _bounds(row) for row in rows]
    return {"faults": "\n\n".join([*parts, "\n".join(notes)])} if rows else {}


def _counts(found: Mapping[str, int]) -> list[str]:
    return [f"{number:,}" for number in (sum(found.values()), found["right"], found["named"], found["else"])]


def _bounds(row: Row) -> str:
    return (
        f"- {row['subject']}: the slowest case took {row['slowest']:.1f} s; cases took at most "
        f"{row['peak_mb']:.0f} MB, the whole valid run {row['valid_mb']:.0f} MB{_measured(row)}"
    )


def _killed(row: Row) -> str:
    return (
        f"- kills: of {row['count']} runs, killed {row['kills']} times at random moments and started again, "
        f"{row['count'] - row['wrong']} ended with the numbers of a run left alone, {row['wrong']} otherwise; "
        f"{row['left']} files were left in the temporary folder, which is on another file system than the output"
        f"{_measured(row)}"
    )


def _measured(row: Row) -> str:
    return f"; seed {row['seed']}, {row['measured']}" if "measured" in row else ""
