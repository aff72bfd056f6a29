"""What a report says, in words and rounded numbers: the terminal's table and the page show the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import floor, log10

from distill.artifact.step import Step

# The typographer's signs, by name: dash, times, minus.
DASH, TIMES, MINUS = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"
TEACHERS = ("teacher", "teachers")
"""How the steps of teachers begin: of the one, or of one of several."""
SPELLED = {"onnx": "ONNX", "openvino": "OpenVINO", "svd": "SVD"}


@dataclass(frozen=True)
class Report:
    """All that a run found out."""

    recipe: str
    steps: tuple[Step, ...]
    """In the order made; the teacher, if there is one, is what the others are compared with, else the first."""
    monitor: str = "accuracy"
    """The metric that decides, with or without its split: "accuracy", "val/accuracy"."""
    percent: bool = True
    """The monitor is a fraction and shown in percent."""
    curves: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    """Step -> one row per epoch: {"epoch": 1, "val/accuracy": 0.71, "train/loss": 1.3, ...}."""
    confusion: Sequence[Sequence[int]] = ()
    """Counts of the final student on the test split: a row per true class, a column per answer."""
    classes: Sequence[str] = ()
    resolved: str = ""
    """The recipe with all its defaults, as YAML."""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The monitor's name without its split."""
        return self.monitor.rpartition("/")[2]

    @property
    def reference(self) -> Step:
        return next((step for step in self.steps if step.step.partition("/")[0] in TEACHERS), self.steps[0])

    @property
    def final(self) -> Step:
        """The network that ships: the last one that is not an export of another."""
        return [step for step in self.steps if not step.step.startswith("export/")][-1]


@dataclass(frozen=True)
class Fact:
    """One number of the headline: "71x smaller", and what it compares."""

    value: str
    label: str
    detail: str


def headers(report: Report) -> list[tuple[str, str]]:
    """What each column holds, in two lines."""
    unit = ", %" if report.percent else ""
    metric = [(report.metric, f"{split}{unit}") for split in ("val", "test")]
    runtime = [("ONNX Runtime", f"batch {size}, ms") for size in (1, 32)]
    return [("", "step"), ("", "params"), ("", "MACs"), ("", "on disk"), ("", "smaller"), *metric, *runtime]


def cells(report: Report, step: Step) -> list[str]:
    """One row below `headers`; what was not measured is a dash."""
    return [
        title(step.step, report),
        count(step.params),
        count(step.macs),
        count(step.bytes, "B"),
        times(report.reference.bytes / step.bytes) if step.bytes else DASH,
        *(score(report, step.metrics.get(f"{split}/{report.metric}")) for split in ("val", "test")),
        *(milliseconds(step.latency_ms.get(key)) for key in ("batch1", "batch32")),
    ]


def title(step: str, report: Report) -> str:
    """A step's name for people: "compress/1-tensor_train" is "+ tensor train"."""
    kind, _, rest = step.partition("/")
    match kind:
        case "compress":
            return f"+ {_spell(rest.partition('-')[2] or rest)}"
        case "export":
            return f"exported to {_spell(rest)}"
        case "alone":
            return "student alone"
        case "teachers":
            return f"teacher {rest}"
        case "student" if report.reference.step.partition("/")[0] in TEACHERS:
            return f"student distilled{f', {_spell(rest)}' if rest else ''}"
    return _spell(step.replace("/", ", "))


def headline(report: Report) -> list[Fact]:
    """What a reader wants to know first; nothing is claimed that was not measured."""
    first, final = report.reference, report.final
    if first is final:
        return []
    detail = f"{count(first.bytes, 'B')} → {count(final.bytes, 'B')} on disk"
    size = Fact(*_ratio(first.bytes, final.bytes, "smaller", "larger"), detail)
    return [size, *_speed(first, final), *_change(report, first, final), *_gain(report)]


def sentence(report: Report) -> str:
    """The headline in one line."""
    return ", ".join(f"{fact.value} {fact.label}" for fact in headline(report))


def score(report: Report, value: float | None) -> str:
    """A metric as the table shows it."""
    if value is None:
        return DASH
    return f"{100 * value:.2f}" if report.percent else f"{value:.4g}"


def scored(report: Report, *steps: Step) -> str | None:
    """The metric's name on the most honest split that all of ``steps`` were judged on: test, else validation."""
    names = (f"{split}/{report.metric}" for split in ("test", "val"))
    return next((name for name in names if all(name in step.metrics for step in steps)), None)


def count(value: int, unit: str = "") -> str:
    """Three digits and a decimal prefix: 352042 is "352 k"."""
    for factor, prefix in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= factor:
            return f"{_three_digits(value / factor)} {prefix}{unit}"
    return f"{value} {unit}".rstrip()


def times(ratio: float) -> str:
    """A factor: 3.4 times, 71 times."""
    return f"{ratio:.0f}{TIMES}" if ratio >= 10 else f"{ratio:.1f}{TIMES}"


def milliseconds(value: float | None) -> str:
    """A latency as the table shows it."""
    return DASH if value is None else _three_digits(value)


def _speed(first: Step, final: Step) -> list[Fact]:
    before, after = (step.latency_ms.get("batch1") for step in (first, final))
    if before is None or after is None:
        return []
    detail = f"{milliseconds(before)} → {milliseconds(after)} ms at batch 1 in ONNX Runtime"
    return [Fact(*_ratio(before, after, "faster", "slower"), detail)]


def _change(report: Report, first: Step, final: Step) -> list[Fact]:
    name = scored(report, first, final)
    if name is None:
        return []
    before, after = first.metrics[name], final.metrics[name]
    detail = f"{score(report, before)} → {score(report, after)}{' %' if report.percent else ''}"
    return [
        Fact(
            _difference(report, after - before),
            f"{'points of ' if report.percent else ''}{name.replace('/', ' ')}",
            detail,
        )
    ]


def _gain(report: Report) -> list[Fact]:
    """What the teacher was good for."""
    by_name = {step.step: step for step in report.steps}
    alone, student = by_name.get("alone"), by_name.get("student")
    name = scored(report, alone, student) if alone and student else None
    if alone is None or student is None or name is None:
        return []
    before, after = alone.metrics[name], student.metrics[name]
    detail = f"{score(report, before)} → {score(report, after)}{' %' if report.percent else ''}, same network"
    return [
        Fact(_difference(report, after - before), f"{'points ' if report.percent else ''}from distillation", detail)
    ]


def _ratio(before: float, after: float, better: str, worse: str) -> tuple[str, str]:
    return (times(before / after), better) if before >= after else (times(after / before), worse)


def _difference(report: Report, value: float) -> str:
    digits = f"{100 * value:+.2f}" if report.percent else f"{value:+.3g}"
    return digits.replace("-", MINUS)


def _spell(name: str) -> str:
    return SPELLED.get(name, name.replace("_", " "))


def _three_digits(value: float) -> str:
    places = 2 - floor(log10(value)) if value > 0 else 0
    return f"{value:.{max(places, 0)}f}"
