"""What the report says of exported files that are offered coded too."""

import json
from pathlib import Path

from distill import report
from distill.artifact.step import Step
from distill.report import Report
from distill.report.html import page
from distill.report.rows import TIMES

STEPS = tuple(Step(name, 10, 10, size, {}, {}, 1.0) for name, size in (("teacher", 1_000_000), ("export/onnx", 90_000)))


def test_a_coded_file_is_said_with_its_bytes(tmp_path: Path) -> None:
    coded = Report("coded", STEPS, coded_bytes={"student.onnx.xz": 40_000})
    line = f"student.onnx.xz, coded for its way to the device (xz -d): 40.0 kB, 25{TIMES} smaller than the teacher"
    assert line in report.notes(coded)
    assert line in page(coded)
    report.write(tmp_path, coded)
    assert json.loads((tmp_path / "report.json").read_text())["coded_bytes"] == {"student.onnx.xz": 40_000}
    assert not any("coded" in note for note in report.notes(Report("plain", STEPS)))
