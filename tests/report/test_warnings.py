"""What must be said before a headline: worse than without a teacher, no better than guessing."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from distill import report
from distill.artifact.step import Step
from distill.report import Guess, Report, warnings
from distill.report.headline import headline, sentence
from distill.report.html import page
from distill.report.pictures import pictures
from distill.report.rows import cells, legend

TIMES = "\N{MULTIPLICATION SIGN}"


def row(name: str, size: int, **metrics: float) -> Step:
    named = {f"{split}/{metric}": value for metric, value in metrics.items() for split in ("val", "test")}
    return Step(name, size, size, size, named, {"batch1": size / 1000, "batch32": size / 100}, 1.0)


def percent(teacher: float, baseline: float, student: float, *, guess: float = 0.1, samples: int = 1000) -> Report:
    steps = (
        row("teacher", 4000, accuracy=teacher, top5_accuracy=0.99),
        row("baseline", 2000, accuracy=baseline, top5_accuracy=0.9),
        row("student", 2000, accuracy=student, top5_accuracy=0.9),
        row("compress/1-svd", 1000, accuracy=student, top5_accuracy=0.9),
    )
    units = {"accuracy": "%", "top5_accuracy": "%"}
    return Report("shown", steps, units=units, guess=Guess({"test/accuracy": guess}, samples))


def pixels(teacher: float, baseline: float, student: float, *, guess: float = 5.0) -> Report:
    steps = (
        row("teacher", 4000, epe=teacher),
        row("baseline", 2000, epe=baseline),
        row("student", 2000, epe=student),
        row("compress/1-svd", 1000, epe=student),
    )
    return Report("flow", steps, monitor="epe", mode="min", units={"epe": "px"}, guess=Guess({"test/epe": guess}, 100))


def printed(content: Report, width: int) -> str:
    console = Console(width=width, file=StringIO())
    console.print(report.table(content, width))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_a_good_run_has_none() -> None:
    for content in (percent(0.95, 0.90, 0.93), pixels(1.0, 2.0, 1.5)):
        assert warnings(content) == []
        assert legend(content) == ""
        assert "card warning" not in page(content)


def test_a_student_worse_than_without_a_teacher_is_told_first() -> None:
    content = percent(0.95, 0.93, 0.90)
    (line,) = warnings(content)
    assert "Distillation made the student worse" in line
    assert "90.00 %" in line
    assert "93.00 %" in line
    assert sentence(content).startswith("worse than without a teacher; 4.0")
    assert "90.00\N{DAGGER}" in cells(content, content.steps[2])
    assert page(content).index(line) < page(content).index("smaller")


def test_of_a_metric_where_less_is_better_the_higher_one_is_worse() -> None:
    assert "Distillation made the student worse" in warnings(pixels(1.0, 1.5, 2.0))[0]
    assert warnings(pixels(1.0, 2.0, 1.5)) == []


@pytest.mark.parametrize(
    ("accuracy", "samples", "said"),
    [
        (0.05, 1000, True),
        (0.10, 1000, True),
        (0.118, 1000, True),  # within two standard errors of 0.0095
        (0.12, 1000, False),
        (0.118, 100_000, False),
    ],
)
def test_no_better_than_guessing_allows_for_chance(accuracy: float, samples: int, said: bool) -> None:
    content = percent(0.95, accuracy, accuracy, samples=samples)
    assert any("no better than guessing" in line for line in warnings(content)) is said
    assert ("*" in printed(content, 100)) is said
    assert sentence(content).startswith("no better than guessing") is said


def test_an_untrained_network_is_the_guess_of_other_tasks() -> None:
    assert "no better than guessing" in warnings(pixels(1.0, 5.5, 5.5))[0]
    assert "5 px" in warnings(pixels(1.0, 5.5, 5.5))[0]


def test_programs_read_them_too(tmp_path: Path) -> None:
    content = percent(0.95, 0.93, 0.90)
    report.write(tmp_path, content)
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["warnings"] == warnings(content)
    assert (written["mode"], written["units"]["accuracy"]) == ("max", "%")


def test_the_headline_of_a_metric_where_less_is_better() -> None:
    _, _, change, gain = headline(pixels(1.0, 2.0, 1.5))
    assert (change.value, change.label) == ("+0.5 px", "test EPE (lower is better)")
    assert (gain.value, gain.label) == ("\N{MINUS SIGN}0.5 px", "from distillation (lower is better)")
    assert change.detail == "1 → 1.5 px"


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_the_table_leaves_out_columns_until_it_fits(width: int) -> None:
    lines = printed(percent(0.95, 0.90, 0.93), width).splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "93.00" in text  # the monitor on the test split always stays
    assert "student, no teacher" in text
    assert ("99.00" in text) == (width >= 100)  # the second metric only where there is room


def test_every_metric_has_columns_and_a_curve() -> None:
    curves = {"student/only": [{"epoch": 1, "val/accuracy": 0.5, "val/top5_accuracy": 0.8}]}
    content = replace(percent(0.95, 0.90, 0.93), curves=curves)
    titles = [picture.title for picture in pictures(content)]
    assert "Validation accuracy by epoch" in titles
    assert "Validation top5 accuracy by epoch" in titles
    assert "top5 accuracy" in page(content)


def test_figures_of_any_task_are_drawn() -> None:
    figures = {"per_class": [0.5, 0.7], "mistakes": [[1, 2], [3, 4]], "pairs": {"a taken for b": 3, "b taken for a": 1}}
    content = replace(percent(0.95, 0.90, 0.93), figures={**figures, "none": {}})
    drawn = {picture.title: picture.figure.data[0] for picture in pictures(content)}
    assert (drawn["Per class"].type, drawn["Mistakes"].type, drawn["Pairs"].type) == ("bar", "heatmap", "bar")
    assert dict(zip(drawn["Pairs"].y, drawn["Pairs"].x, strict=True)) == figures["pairs"]
    assert drawn["Pairs"].y[-1] == "a taken for b"  # the first name is on top
    assert "None" not in drawn


def test_predictions_are_inside_the_page() -> None:
    html = page(replace(percent(0.95, 0.90, 0.93), predictions=["data:image/png;base64,AAAA"]))
    assert '<img src="data:image/png;base64,AAAA"' in html


def test_merged_markers_are_drawn_in_their_middle() -> None:
    steps = (
        row("teacher", 4000, accuracy=0.9),
        row("student", 1000, accuracy=0.5),
        row("student/b", 1000, accuracy=0.52),
    )
    size = next(iter(pictures(Report("close", steps, units={"accuracy": "%"})))).figure.data[1]
    assert list(size.text) == ["1", "2-3"]
    assert list(size.y) == [90, pytest.approx(51)]
