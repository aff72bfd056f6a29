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
    cache_views: int | None
    """Of the cache that there was, or of the one that there would be by default; None where none can be."""

    @property
    def cache_pays_from_epochs(self) -> int | None:
        """Of all stages of a run: filling a cache of n views takes the teacher's passes of n epochs."""
        return None if self.cache_views is None else self.cache_views + 1

    @property
    def cache_pays_from_runs(self) -> int | None:
        """Of as many epochs as this one, with the same teacher."""
        return None if self.cache_views is None else self.cache_views // self.epochs + 1

    def to_json(self) -> dict[str, float | None]:
        return {
            "seconds": self.seconds,
            "teacher_seconds": self.teacher_seconds,
            "epochs": self.epochs,
            "cache_pays_from_epochs": self.cache_pays_from_epochs,
            "cache_pays_from_runs": self.cache_pays_from_runs,
        }

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
    views = report.cached_views or (Cache().views if report.cacheable else None)
    return TeacherShare(seconds, teacher, len(rows), views)


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
    if share.cache_views is None:
        return f"The teacher took {taken}; no cache can hold its outputs in this recipe."
    pays = f"pays from {share.cache_pays_from_epochs} epochs on"
    if share.cache_pays_from_runs != 1:
        pays = f"{pays}, or from {share.cache_pays_from_runs} runs like this one with the same teacher"
    if report.cached_views:
        return f"The teacher and its cache took {taken}; the cache {pays}."
    saves = f"about {share.teacher_seconds / share.epochs:.2g} s less an epoch after the first {share.cache_views}"
    return f"The teacher took {taken}; cache={{views: {share.cache_views}}} {pays}: {saves}."
