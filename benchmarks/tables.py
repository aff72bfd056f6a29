"""Write the tables of the documentation from the measurements in ``benchmarks/results``.

    python -m benchmarks.tables [--check]

A page shows the table NAME between the lines ``<!-- results: NAME -->`` and ``<!-- end -->``; what is one sentence may
stand between both markers within a line.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from benchmarks import (
    blocks,
    caffe,
    character_speed,
    codecs,
    compression,
    conditional,
    contractions,
    deep_compression,
    distillation_speed,
    flow,
    freed_memory,
    gpu,
    int8,
    kernels,
    methods,
    peers,
    predict_parameters,
    ranks,
    runtime,
    seeds,
    stages,
    students,
    style,
    tasks,
    unlabelled,
)
from benchmarks._command import command, described
from benchmarks._results import read, with_table
from benchmarks.faults import _tables as faults

SUBJECTS = (
    *(seeds, tasks, flow, style, unlabelled, stages, codecs, caffe, runtime, gpu, faults),
    *(distillation_speed, freed_memory, compression, contractions, peers, int8, kernels, blocks),
    *(predict_parameters, deep_compression, ranks, students, conditional, methods, character_speed),
)
"""Each has its ``FILE`` of measurements, the ``IDENTITY`` that tells them apart, and ``tables(rows)``."""
PAGES = (Path("README.md"), Path("BENCHMARKS.md"), *sorted(Path("docs").rglob("*.md")))
MARKER = re.compile(r"<!-- results: (.+?) -->")


def tables() -> Mapping[str, str]:
    """Every table that there are measurements for, by name."""
    found: dict[str, str] = {}
    for subject in SUBJECTS:
        found |= subject.tables(read(subject.FILE, subject.IDENTITY))
    return found


def pages() -> dict[Path, str]:
    """Every page that shows measurements, as it should be."""
    known, made = tables(), {}
    for path in PAGES:
        page = text = path.read_text(encoding="utf-8")
        for name in MARKER.findall(text):
            page = with_table(page, name, known.get(name, "Not measured yet."))
        if page != text or MARKER.search(text):
            made[path] = page
    return made


def differing() -> dict[Path, str]:
    """Pages that do not show what was measured, as they should be."""
    return {path: page for path, page in pages().items() if path.read_text(encoding="utf-8") != page}


@command
def main() -> None:
    """Write what differs."""
    parser = described(__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; the exit code is 1 if a page differs")
    options = parser.parse_args()
    found = differing()
    for path, page in found.items():
        print(path)
        if not options.check:
            path.write_text(page, encoding="utf-8")
    if found and options.check:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
