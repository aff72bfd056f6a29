"""Pages of figures: what they say about the machine that they were measured on, and how they are written."""

import platform
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path


def measured_here() -> str:
    """Date, processor and version of Python."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor()
    return f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {processor}, Python {platform.python_version()}"


def write_page(path: Path, lines: Iterable[str]) -> None:
    """A file of these lines, each shown on standard error when it is known."""
    written = []
    for line in lines:
        written.append(line)
        print(line, file=sys.stderr, flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(written) + "\n", encoding="utf-8")
