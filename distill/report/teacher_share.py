"""What the teacher's forward passes cost of the seconds of distillation, and when a cache of its outputs pays."""

from dataclasses import dataclass

from distill.recipe.schema.cache import Cache
from distill.report.content import Report


@dataclass(frozen=True)
class TeacherShare:
    """Seconds of all stages that had a teacher."""

    seconds: float
    """Of their epochs, validation included."""
    teacher_seconds: float
    """Of these, in the teacher or in reading its cached outputs."""
    epochs: int

    @property
    def part(self) -> float:
        """From 0 to 1."""
        return self.teacher_seconds / self.seconds if self.seconds else 0.0


def teacher_share(report: Report) -> TeacherShare | None:
    """None where no stage had a teacher, or an older version trained them all."""
    rows = [row for curve in report.curves.values() for row in curve if "teacher_seconds" in row]
    if not rows:
        return None
    seconds, teacher = (sum(row[key] for row in rows) for key in ("seconds", "teacher_seconds"))
    return TeacherShare(seconds, teacher, len(rows))


def teacher_note(report: Report) -> str:
    """The share in words; empty where there is none.

    A cache of n views costs the teacher's passes of n epochs once, and the runs that share it read it afterwards.
    """
    share = teacher_share(report)
    if share is None:
        return ""
    times = (share.teacher_seconds, share.seconds)
    spent, whole = (f"{value:.1f}" if value >= 1 else f"{value:.2g}" for value in times)
    taken = f"{spent} of {whole} s of distillation ({100 * share.part:.0f} %)"
    if views := report.cached_views:
        epochs = f"{views} epoch{'s' if views > 1 else ''}"
        return f"The teacher and its cache took {taken}; the cache pays in runs of more than {epochs}."
    views = Cache().views
    pays = f"cache={{views: {views}}} pays from {views + 1} epochs on, or in the next run with the same teacher"
    return f"The teacher took {taken}; {pays}."
