"""What the pictures of a report show, so that a reader can tell what is what."""

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill import report
from distill.artifact.step import Step
from distill.report import Report
from distill.report.headline import headline
from distill.report.pictures import pictures
from distill.report.rows import TIMES, headers
from distill.report.trade_off import MOST_TICKS, by_size


def step(name: str, size: int, *, ms: float = 1.0) -> Step:
    return Step(name, size, size, size, {"test/map": 0.5}, {"batch1": ms}, 1.0)


@given(smallest=st.integers(100, 10**8), times=st.floats(1.5, 10**5))
def test_sizes_are_named_so_that_labels_stay_apart(smallest: int, times: float) -> None:
    largest = round(smallest * times)
    content = Report("sizes", (step("teacher", largest), step("student", smallest)), monitor="map")
    axis = by_size(content, "test/map").layout.xaxis
    assert 1 <= len(axis.tickvals) <= MOST_TICKS
    assert all(smallest <= tick <= largest for tick in axis.tickvals)
    assert all(re.fullmatch(r"[1-9]\d{0,2}(\.\d+)? [kMGT]?B", text) for text in axis.ticktext)
    assert len({*axis.ticktext}) == len(axis.ticktext)
    apart = [math.log(large / small) for small, large in pairwise(axis.tickvals)]
    assert all(gap > math.log(times) / 20 for gap in apart)


def test_steps_of_one_colour_have_lines_of_their_own() -> None:
    curves = {
        name: [{"epoch": epoch, "val/map": 0.1 * epoch, "train/loss": 1.0} for epoch in (1, 2)]
        for name in ("student/distill", "compress/1-svd", "compress/2-int8")
    }
    content = Report("lines", (step("student", 10),), monitor="map", curves=curves)
    shown = {picture.title: picture.figure for picture in pictures(content)}
    for title, ends in {"Validation mAP by epoch": "", "Training losses by epoch": ": loss"}.items():
        lines = {line.name.removesuffix(ends): (line.line.color, line.line.dash) for line in shown[title].data}
        assert len(set(lines.values())) == 3
        assert [*lines] == ["student, distill", "+ SVD", "+ int8"]


def test_one_stage_needs_no_name() -> None:
    steps = (step("teacher", 20), step("student", 10))
    rows = [{"epoch": 1, "val/map": 0.1}]
    for stages, names in (
        (["distill"], ["student distilled"]),
        (["blocks", "distill"], ["student distilled, blocks", "student distilled, distill"]),
    ):
        content = Report("stages", steps, monitor="map", curves={f"student/{name}": rows for name in stages})
        shown = next(picture for picture in pictures(content) if picture.title == "Validation mAP by epoch")
        assert [line.name for line in shown.figure.data] == names


def test_metrics_are_spelled_as_papers_do() -> None:
    metrics = {"val/mean_iou": 0.5, "test/ap50": 0.5, "test/fl_all": 0.5}
    content = Report("spelled", (Step("student", 10, 10, 10, metrics, {}, 1.0),), monitor="mean_iou")
    assert {name for name, _ in headers(content)} >= {"mean IoU", "AP50", "Fl all"}


@pytest.mark.parametrize(("units", "heights"), [({"ap_by_class": "%"}, [50.0, 25.0]), ({}, [0.5, 0.25])])
def test_bars_have_the_unit_of_their_figure(units: dict[str, str], heights: list[float]) -> None:
    figures = {"ap_by_class": [0.5, 0.25]}
    content = Report("bars", (step("student", 10),), monitor="map", units=units, figures=figures)
    shown = next(picture for picture in pictures(content) if picture.title == "AP by class")
    assert [*shown.figure.data[0].y] == heights
    assert (shown.figure.layout.yaxis.ticksuffix == " %") == bool(units)


def test_suppression_of_boxes_is_no_slower_network() -> None:
    """A file that also suppresses boxes is compared with its teacher by the network alone, and the table says so."""
    steps = (step("teacher", 100, ms=2.0), step("student", 10, ms=0.5), step("export/onnx", 12, ms=4.0))
    content = Report("boxes", steps, monitor="map", beyond={"export/onnx": "non-maximum suppression"})
    speed = next(fact for fact in headline(content) if fact.label in {"faster", "slower"})
    assert (speed.value, speed.label) == (f"4.0{TIMES}", "faster")
    assert speed.detail.endswith("without non-maximum suppression")
    assert any("exported to ONNX with non-maximum suppression" in note for note in report.notes(content))
    plain = Report("boxes", steps, monitor="map")
    assert next(fact.label for fact in headline(plain) if fact.label in {"faster", "slower"}) == "slower"
