"""The table of steps in words and rounded numbers: the terminal and the page show the same."""

from collections.abc import Callable
from functools import partial
from math import floor, log10
from typing import NamedTuple

from distill.artifact.step import Step
from distill.measure.latency import SAME_SPEED, busy
from distill.report.content import TEACHERS, Report

# The typographer's signs, by name: dash, times, minus, dagger.
DASH, TIMES, MINUS = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"
NO_BETTER_THAN_GUESSING, WORSE_THAN_BASELINE = "*", "\N{DAGGER}"
"""Marks of a metric in the table."""
EFFECTIVE = "effective"
SPARSE = (
    "effective: without zero weights, and values shared by a hash once; only a runtime with sparse kernels "
    "(for 2:4, sparse tensor cores) is faster by it, ONNX Runtime has none"
)
SPELLED = {
    **{"onnx": "ONNX", "openvino": "OpenVINO", "svd": "SVD", "cp": "CP", "tt": "TT"},
    **{"map": "mAP", "ap": "AP", "ap50": "AP50", "ap75": "AP75", "iou": "IoU", "epe": "EPE", "fl": "Fl", "kl": "KL"},
    **{"psnr": "PSNR", "ssim": "SSIM"},
}
"""Words of the names of hooks, exporters and metrics, as papers write them."""


class Column(NamedTuple):
    """One column of the table."""

    name: str
    detail: str
    """Under the name."""
    cell: Callable[[Step], str]
    rank: int
    """Where there is no room, columns of a higher rank are left out first; those of rank 0 always stay."""


def columns(report: Report) -> list[Column]:
    """Every column in which something was measured; what was not is a dash in it."""
    tested = any(f"test/{report.monitor}" in step.metrics for step in report.steps)
    every = [
        Column("", "step", lambda step: title(step.step, report), 0),
        *_cost_columns(report),
        Column("", "on disk", lambda step: count(step.bytes, "B"), 1),
        Column("", "smaller", lambda step: times(report.reference.bytes / step.bytes) if step.bytes else DASH, 3),
        *(column for metric in report.metrics for column in _metric_columns(report, metric, tested)),
        *(
            Column("ONNX Runtime", f"batch {size}, ms", partial(_latency, report, size), 2 if number == 0 else 6)
            for number, size in enumerate(report.batch_sizes)
        ),
    ]
    return [column for column in every if any(column.cell(step) != DASH for step in report.steps)]


def headers(report: Report) -> list[tuple[str, str]]:
    """What each column holds, in two lines."""
    return [(column.name, column.detail) for column in columns(report)]


def cells(report: Report, step: Step) -> list[str]:
    """One row below `headers`."""
    return [column.cell(step) for column in columns(report)]


def title(step: str, report: Report) -> str:
    """A step's name for people: "compress/1-tensor_train" is "+ tensor train"."""
    kind, _, rest = step.partition("/")
    match kind:
        case "compress":
            return f"+ {spelled(rest.partition('-')[2] or rest)}"
        case "export":
            return f"exported to {spelled(rest)}"
        case "baseline":
            return "student, no teacher"
        case "teachers":
            return f"teacher {rest}"
        case "student" if report.reference.step.partition("/")[0] in TEACHERS:
            several = sum(name.startswith("student/") for name in report.curves) > 1
            return f"student distilled{f', {spelled(rest)}' if rest and several else ''}"
    return ", ".join(spelled(part) for part in step.split("/"))


def spelled(name: str) -> str:
    """A name of a program for people: "test/mean_iou" is "test mean IoU"."""
    return " ".join(SPELLED.get(word, word) for word in name.replace("/", "_").split("_"))


def score(report: Report, metric: str, value: float | None) -> str:
    """A metric as the table shows it."""
    if value is None:
        return DASH
    return f"{100 * value:.2f}" if report.units.get(metric) == "%" else f"{value:.4g}"


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


def _cost_columns(report: Report) -> list[Column]:
    shown = [Column("", "params", lambda step: count(step.params), 2)]
    if "params" in report.effective:
        shown.append(Column(EFFECTIVE, "params", lambda step: count(_or(step.effective_params, step.params)), 2))
    shown.append(Column("", "MACs", lambda step: count(step.macs), 5))
    if "macs" in report.effective:
        shown.append(Column(EFFECTIVE, "MACs", lambda step: count(_or(step.effective_macs, step.macs)), 5))
    return shown


def _or(effective: int | None, dense: int) -> int:
    return dense if effective is None else effective


def _metric_columns(report: Report, metric: str, tested: bool) -> list[Column]:
    unit = report.units.get(metric)
    main, decides = metric == report.monitor, "test" if tested else "val"
    return [
        Column(
            spelled(metric),
            f"{split}, {unit}" if unit else split,
            partial(_metric, report, metric, split),
            0 if main and split == decides else 4 if main else 5 if split == decides else 7,
        )
        for split in ("val", "test")
    ]


def _metric(report: Report, metric: str, split: str, step: Step) -> str:
    shown = score(report, metric, step.metrics.get(f"{split}/{metric}"))
    return shown + (marks(report, step) if metric == report.monitor and split == "test" else "")


def marks(report: Report, step: Step) -> str:
    """After the monitor on the test split."""
    guessing = NO_BETTER_THAN_GUESSING if report.beats_guessing(step) is False else ""
    return guessing + (WORSE_THAN_BASELINE if report.worse_than_baseline(step) else "")


def legend(report: Report) -> str:
    """What the marks and effective counts in the table mean; empty if there are none."""
    found = "".join(marks(report, step) for step in report.steps)
    guess = score(report, report.monitor, report.guess.metrics.get(f"test/{report.monitor}"))
    meanings = {
        NO_BETTER_THAN_GUESSING: f"no better than guessing ({guess}{report.unit(report.monitor)})",
        WORSE_THAN_BASELINE: "worse than the same network without a teacher",
    }
    notes = [f"{mark} {meaning}" for mark, meaning in meanings.items() if mark in found]
    return "; ".join([*notes, *([SPARSE] if report.effective else [])])


def timing_note(report: Report) -> str:
    """How latency was measured, and what a busy machine did to it; empty if it was not."""
    if not any(step.latency_ms for step in report.steps):
        return ""
    how = "latency: median on one thread, all networks in turns, in ONNX Runtime or in the runtime of an export"
    same = f"{SAME_SPEED} quartiles overlap with those of the row above"
    marked = any(SAME_SPEED in _latency(report, size, step) for size in report.batch_sizes for step in report.steps)
    more = [f"{title(name, report)} with {what}, the others without" for name, what in report.beyond.items()]
    notes = [how, *more, *([same] if marked else []), busy(report.waited)]
    return "; ".join(note for note in notes if note)


def coded_note(report: Report) -> str:
    """How many bytes exported files have on their way to the device; empty where coding does not pay."""
    first = report.reference
    return "; ".join(
        f"{name}, coded for its way to the device (xz -d): {count(size, 'B')}, {times(first.bytes / size)} smaller "
        f"than the {title(first.step, report)}"
        for name, size in report.coded_bytes.items()
    )


def _latency(report: Report, size: int, step: Step) -> str:
    """A latency, marked if it cannot be told from that of the last row above that has one."""
    shown = milliseconds(step.latency_ms.get(f"batch{size}"))
    above = [other for other in report.steps[: report.steps.index(step)] if f"batch{size}" in other.latency_ms]
    return f"{SAME_SPEED}{shown}" if above and report.same_speed(step, above[-1], size) else shown


def _three_digits(value: float) -> str:
    places = 2 - floor(log10(value)) if value > 0 else 0
    return f"{value:.{max(places, 0)}f}"
