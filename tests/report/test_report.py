import json
import re
from dataclasses import replace
from html import unescape
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from distill import report
from distill.artifact.step import Step
from distill.errors import DistillError
from distill.report import Report
from distill.report.headline import headline, sentence
from distill.report.html import page
from distill.report.pictures import pictures, script
from distill.report.rows import cells, count, headers, milliseconds

DASH, MINUS, TIMES = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


def step(name: str, size: int, test: float, milliseconds: float) -> Step:
    metrics = {"val/accuracy": test + 0.01, "test/accuracy": test}
    latency = {"batch1": milliseconds, "batch32": 20 * milliseconds}
    return Step(name, size // 4, size * 100, size, metrics, latency, 1.0)


@pytest.fixture
def full() -> Report:
    return Report(
        recipe="digits/<tiny>",
        steps=(
            step("teacher", 1_000_000, 0.95, 0.6),
            step("baseline", 400_000, 0.90, 0.3),
            step("student", 400_000, 0.93, 0.3),
            step("compress/1-tensor_train", 100_000, 0.925, 0.2),
            step("compress/2-encode", 50_000, 0.925, 0.2),
            step("export/onnx", 100_500, 0.925, 0.2),
        ),
        units={"accuracy": "%"},
        curves={
            "student": [
                {"epoch": 1, "val/accuracy": 0.5, "train/loss": 2.0, "train/kd": 1.5},
                {"epoch": 2, "val/accuracy": 0.9, "train/loss": 1.0, "train/kd": 0.5},
            ]
        },
        figures={"confusion": [[50, 2], [3, 45]]},
        classes=["</script>zero", "one"],
        resolved="student: {name: a<b}",
        versions={"torch": "2.8"},
    )


def bare(*metrics: dict[str, float]) -> Report:
    """A report of steps with nothing but metrics."""
    steps = tuple(Step(f"student/{n}", 10, 10, 10, m, {}, 1.0) for n, m in enumerate(metrics))
    return Report("bare", steps, units={"accuracy": "%"})


def printed(content: Report) -> str:
    console = Console(width=100, file=StringIO())
    console.print(report.table(content))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def rows(html: str) -> list[list[str]]:
    """The text of every cell of the page's table."""
    return [
        [unescape(re.sub(r"<.*?>", "", cell)) for cell in re.findall(r"<td>(.*?)</td>", row)]
        for row in re.findall(r"<tr.*?</tr>", html)[1:]
    ]


def test_the_json_holds_every_step_as_it_was(full: Report, tmp_path: Path):
    report.write(tmp_path, full)
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["recipe"] == "digits/<tiny>"
    assert tuple(Step.from_json(row) for row in content["steps"]) == full.steps
    assert set(content["steps"][0]) == {"step", "params", "macs", "bytes", "metrics", "latency_ms", "seconds"}
    assert content["figures"]["confusion"] == [[50, 2], [3, 45]]
    assert content["curves"]["student"][1]["train/kd"] == 0.5
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_a_folder_that_cannot_be_written_is_named(full: Report, tmp_path: Path):
    (tmp_path / "taken").touch()
    with pytest.raises(DistillError, match=r"cannot write .*taken/report\.json"):
        report.write(tmp_path / "taken", full)


def test_the_table_names_every_step_and_says_where_latency_comes_from(full: Report):
    lines = printed(full).splitlines()
    names = ["teacher", "student, no teacher", "student distilled", "+ tensor train", "+ encode", "exported to ONNX"]
    shown = [line for line in lines if line.strip().startswith(tuple(names))]
    assert [re.split(r"\s{2,}", line.strip())[0] for line in shown] == names
    assert re.split(r"\s{2,}", shown[3].strip())[1:] == [
        *("25.0 k", "10.0 M", "100 kB", f"10{TIMES}", "93.50", "92.50", "0.200", "4.00")
    ]
    assert "ONNX" in "".join(lines[:3])
    assert "Runtime" in "".join(lines[:4])
    assert max(map(len, lines)) <= 100
    assert "\N{HORIZONTAL ELLIPSIS}" not in "".join(lines)


def test_the_page_shows_the_same_table(full: Report):
    shown = rows(page(full))
    for number, (row, made) in enumerate(zip(shown, full.steps, strict=True), start=1):
        name, *values = cells(full, made)
        assert row == [f"{number}{name}", *values]


def test_pruned_and_hashed_networks_show_what_is_left_and_which_runtime_profits(full: Report):
    assert "effective" not in printed(full)
    teacher, small = full.steps[0], full.steps[-1]
    pruned = replace(small, effective_params=5_000, effective_macs=1_000_000)
    content = replace(full, steps=(teacher, pruned))
    names = [" ".join(header).strip() for header in headers(content)]
    shown = dict(zip(names, cells(content, pruned), strict=True))
    assert (shown["params"], shown["effective params"]) == ("25.1 k", "5.00 k")
    assert (shown["MACs"], shown["effective MACs"]) == ("10.1 M", "1.00 M")
    assert cells(content, teacher)[names.index("effective params")] == "250 k"
    for text in (printed(content), page(content)):
        assert "only a runtime with sparse kernels" in " ".join(text.split())
    assert report.as_json(content)["steps"][1]["effective_macs"] == 1_000_000


def test_the_page_needs_no_network_and_escapes_what_others_wrote(full: Report):
    html = page(full)
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", html.replace(script(), ""))
    assert "<link" not in html
    assert "<title>digits/&lt;tiny&gt;" in html
    assert "a&lt;b" in html
    assert "</script>zero" not in html


def test_the_headline_compares_what_ships_with_the_teacher(full: Report):
    assert [(fact.value, fact.label) for fact in headline(full)] == [
        (f"10.0{TIMES}", "smaller"),  # the exported file, not the coded artifact before it
        (f"3.0{TIMES}", "faster"),
        (f"{MINUS}2.50", "points of test accuracy"),
        ("+3.00", "points from distillation"),
    ]
    assert headline(full)[0].detail == "1.00 MB → 100 kB on disk, exported to ONNX"
    assert all(fact.value in page(full) for fact in headline(full))


def test_the_headline_admits_what_got_worse():
    content = Report(
        "worse", (step("teacher", 1000, 0.5, 1.0), step("student", 2000, 0.6, 4.0)), units={"accuracy": "%"}
    )
    assert sentence(content) == f"2.0{TIMES} larger, 4.0{TIMES} slower, +10.00 points of test accuracy"


def test_nothing_is_claimed_without_anything_to_compare():
    content = bare({"test/accuracy": 0.5})
    assert headline(content) == []
    assert "50.00" in printed(content)
    assert "50.00" in page(content)


def test_what_was_not_measured_is_a_dash():
    content = bare({"test/accuracy": 0.5}, {})
    assert [row.count(DASH) for row in rows(page(content))] == [0, 1]
    assert printed(content).count(DASH) == 1


def test_what_no_step_has_measured_is_no_column():
    """As `fidelity`, which is known on the test split alone."""
    content = bare({"val/total": 0.5, "test/total": 0.6, "test/ssim": 0.9}, {"val/total": 0.4, "test/total": 0.5})
    names = [" ".join(header).strip() for header in headers(replace(content, monitor="total", units={"ssim": "%"}))]
    assert {"total val", "total test", "SSIM test, %"} < {*names}
    assert not {name for name in names if name.startswith(("SSIM val", "ONNX Runtime"))}
    html = page(replace(content, monitor="total"))
    assert ("SSIM<br>test" in html, "SSIM<br>val" in html, "ONNX Runtime<br>" in html) == (True, False, False)


def test_a_metric_that_is_no_fraction_keeps_its_unit():
    content = replace(bare({"val/epe": 3.25}, {"val/epe": 2.0}), monitor="epe", units={})
    assert "3.25" in printed(content)
    assert "%" not in printed(content)
    assert f"{MINUS}1.25 val EPE" in sentence(content)
    assert "Val EPE against size on disk" in page(content)


def test_a_student_without_teacher_is_not_called_distilled():
    assert "distilled" not in page(Report("plain", (step("student", 1000, 0.5, 1.0),)))


def test_every_picture_that_there_is_data_for_is_drawn(full: Report):
    titles = [picture.title for picture in pictures(full)]
    assert titles == [
        "Test accuracy against size on disk",
        "Test accuracy against latency",
        "Validation accuracy by epoch",
        "Training losses by epoch",
        "Confusion",
    ]
    assert page(full).count("Plotly.newPlot('picture-") == len(titles)
    assert list(pictures(bare({}))) == []


def test_steps_at_the_same_place_share_a_marker(full: Report):
    latency = list(pictures(full))[1].figure.data[1]
    assert list(latency.text) == ["1", "2", "3", "4-6"]
    assert latency.hovertext[3].count("92.50 %, 0.200 ms") == 3


def test_curves_are_those_of_training(full: Report):
    _, _, validation, losses, _ = (picture.figure for picture in pictures(full))
    assert [list(line.y) for line in validation.data] == [[50, 90]]
    assert {line.name: (list(line.y), line.visible) for line in losses.data} == {
        "student distilled: loss": ([2.0, 1.0], True),
        "student distilled: kd": ([1.5, 0.5], False),
    }


@pytest.mark.parametrize(("classes", "named"), [(30, True), (31, False)])
def test_many_classes_are_not_named(full: Report, classes: int, named: bool):
    square = [[int(row == column) for column in range(classes)] for row in range(classes)]
    *_, picture = pictures(
        replace(full, figures={"confusion": square}, classes=[str(index) for index in range(classes)])
    )
    assert picture.figure.layout.xaxis.showticklabels is (None if named else False)


def test_confusion_is_shaded_by_share_of_the_true_class(full: Report):
    *_, picture = pictures(full)
    assert picture.figure.data[0].z[1] == pytest.approx((3 / 48, 45 / 48))


@given(st.integers(0, 10**14))
def test_counts_keep_three_digits(value: int):
    number, _, prefix = count(value).partition(" ")
    factor = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}[prefix]
    assert float(number) * factor == pytest.approx(value, rel=0.005)


@pytest.mark.parametrize(("value", "text"), [(None, DASH), (0.03127, "0.0313"), (1.5, "1.50"), (1234.5, "1234")])
def test_milliseconds_keep_three_digits(value: float | None, text: str):
    assert milliseconds(value) == text


def timed(full: Report, **quartiles: tuple[float, float]) -> Report:
    named = {"trains": "compress/1-tensor_train"}
    return replace(full, quartiles_ms={named.get(name, name): {"batch1": pair} for name, pair in quartiles.items()})


def test_latencies_whose_quartiles_overlap_with_the_row_above_are_marked(full: Report) -> None:
    column = [name for _, name in headers(full)].index("batch 1, ms")
    raced = timed(full, teacher=(0.55, 0.65), baseline=(0.28, 0.33), student=(0.25, 0.29), trains=(0.1, 0.2))
    same = "\N{ALMOST EQUAL TO}"
    assert [cells(raced, row)[column] for row in raced.steps[:4]] == ["0.600", "0.300", f"{same}0.300", "0.200"]
    assert "quartiles overlap" in page(raced)
    assert "quartiles overlap" not in page(full)


def test_a_speed_that_cannot_be_told_apart_is_no_headline(full: Report) -> None:
    raced = replace(full, quartiles_ms={row.step: {"batch1": (0.1, 0.7)} for row in full.steps})
    assert "faster" in sentence(full)
    assert "faster" not in sentence(raced)
    assert "equally fast" in sentence(raced)


def test_a_busy_machine_is_said(full: Report) -> None:
    assert "busy" not in page(replace(full, waited=0.02))
    assert "35 % of the time went to other processes" in page(replace(full, waited=0.35))


def test_the_share_of_the_teacher_is_in_the_report(full: Report) -> None:
    rows = [{"epoch": n, "val/accuracy": 0.5, "seconds": 4.0, "teacher_seconds": 3.0 - n} for n in (1, 2)]
    taught = replace(full, curves={"student": rows})
    pays = {"cache_pays_from_epochs": 5, "cache_pays_from_runs": 3}
    assert report.as_json(taught)["teacher"] == {"seconds": 8.0, "teacher_seconds": 3.0, "epochs": 2, **pays}
    assert "3.0 of 8.0 s of distillation (38 %)" in page(taught)
    assert "pays from 5 epochs on, or from 3 runs like this one with the same teacher: about 1.5 s less" in page(taught)
    assert "the cache pays from 2 epochs on." in page(replace(taught, cached_views=1))
    new = replace(taught, cacheable=False)
    assert "no cache can hold its outputs in this recipe" in page(new)
    assert report.as_json(new)["teacher"]["cache_pays_from_epochs"] is None
    assert report.as_json(full)["teacher"] is None


def test_several_teachers_and_an_assistant_are_told_apart() -> None:
    names = ("teachers/large", "teachers/wide", "assistant/elder", "student")
    many = Report("many", tuple(step(name, 1_000 * (4 - i), 0.9, 0.1) for i, name in enumerate(names)))
    titles = ["teacher large", "teacher wide", "assistant, elder", "student distilled"]
    assert [cells(many, row)[0] for row in many.steps] == titles
    assert many.reference is many.steps[0]
