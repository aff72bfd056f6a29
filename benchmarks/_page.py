"""What pages of figures say about the machine that they were measured on."""

import platform
from datetime import UTC, datetime
from pathlib import Path


def measured_here() -> str:
    """Date, processor and version of Python."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor()
    return f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {processor}, Python {platform.python_version()}"
