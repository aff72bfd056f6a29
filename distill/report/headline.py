"""What a reader wants to know first, and what must be said before it."""

from dataclasses import dataclass

from distill.artifact.step import Step
from distill.report.content import Report
from distill.report.rows import MINUS, count, milliseconds, score, spelled, times, title


@dataclass(frozen=True)
class Fact:
    """One number of the headline: "71x smaller", and what it compares."""

    value: str
    label: str
    detail: str


def headline(report: Report) -> list[Fact]:
    """Size, speed and quality of what ships against the teacher, and what distillation gained; nothing unmeasured."""
    first, final = report.reference, report.shipped
    if first is final:
        return []
    detail = f"{count(first.bytes, 'B')} → {count(final.bytes, 'B')} on disk"
    if final is not report.final:
        detail += f", {title(final.step, report)}"
    size = Fact(*_ratio(first.bytes, final.bytes, "smaller", "larger"), detail)
    return [size, *_speed(report, first, final), *_change(report, first, final), *_gain(report)]


def warnings(report: Report) -> list[str]:
    """What makes the headline mislead: a network no better than guessing, a student worse than without a teacher."""
    found = []
    name, unit = f"test/{report.monitor}", report.unit(report.monitor)
    if report.beats_guessing(report.final) is False:
        value, guess = (score(report, report.monitor, of.metrics[name]) for of in (report.final, report.guess))
        found.append(
            f"The final network is no better than guessing: its {spelled(name)} is {value}{unit}, "
            f"a guess that ignores the image has {guess}{unit}."
        )
    baseline, student = (_step(report, name) for name in ("baseline", "student"))
    if student and baseline and report.worse_than_baseline(student):
        metric = report.shared(student, baseline)
        assert metric is not None
        with_teacher, without = (score(report, report.monitor, of.metrics[metric]) for of in (student, baseline))
        found.append(
            f"Distillation made the student worse: its {spelled(metric)} is {with_teacher}{unit}, "
            f"without a teacher {without}{unit}."
        )
    return found


def sentence(report: Report) -> str:
    """The headline in one line, after what makes it mislead."""
    facts = ", ".join(f"{fact.value} {fact.label}" for fact in headline(report))
    bad = ["no better than guessing"] if report.beats_guessing(report.final) is False else []
    student = _step(report, "student")
    bad += ["worse than without a teacher"] if student and report.worse_than_baseline(student) else []
    return f"{' and '.join(bad)}; {facts}" if bad and facts else facts or " and ".join(bad)


def _speed(report: Report, first: Step, final: Step) -> list[Fact]:
    beyond = report.beyond.get(final.step, "")
    final = report.final if beyond else final
    size = next((size for size in report.batch_sizes if f"batch{size}" in final.latency_ms), None)
    before, after = (step.latency_ms.get(f"batch{size}") for step in (first, final))
    if before is None or after is None:
        return []
    assert size is not None
    detail = f"{milliseconds(before)} → {milliseconds(after)} ms at batch {size} in ONNX Runtime"
    detail += f", without {beyond}" if beyond else ""
    if report.same_speed(first, final, size):
        return [Fact("equally", "fast, as far as the machine can tell", detail)]
    return [Fact(*_ratio(before, after, "faster", "slower"), detail)]


def _change(report: Report, first: Step, final: Step) -> list[Fact]:
    name = report.shared(first, final)
    if name is None:
        return []
    before, after = first.metrics[name], final.metrics[name]
    label = f"{'points of ' if _percent(report) else ''}{spelled(name)}{_direction(report)}"
    return [Fact(_difference(report, after - before), label, _detail(report, before, after))]


def _gain(report: Report) -> list[Fact]:
    """What the teacher was good for."""
    baseline, student = _step(report, "baseline"), _step(report, "student")
    name = report.shared(baseline, student) if baseline and student else None
    if baseline is None or student is None or name is None:
        return []
    before, after = baseline.metrics[name], student.metrics[name]
    label = f"{'points ' if _percent(report) else ''}from distillation{_direction(report)}"
    detail = f"{_detail(report, before, after)}, same network"
    return [Fact(_difference(report, after - before), label, detail)]


def _step(report: Report, name: str) -> Step | None:
    return next((step for step in report.steps if step.step == name), None)


def _percent(report: Report) -> bool:
    return report.units.get(report.monitor) == "%"


def _direction(report: Report) -> str:
    return " (lower is better)" if report.mode == "min" else ""


def _detail(report: Report, before: float, after: float) -> str:
    first, second = (score(report, report.monitor, value) for value in (before, after))
    return f"{first} → {second}{report.unit(report.monitor)}"


def _difference(report: Report, value: float) -> str:
    shown = f"{100 * value:+.2f}" if _percent(report) else f"{value:+.3g}{report.unit(report.monitor)}"
    return shown.replace("-", MINUS)


def _ratio(before: float, after: float, better: str, worse: str) -> tuple[str, str]:
    return (times(before / after), better) if before >= after else (times(after / before), worse)
