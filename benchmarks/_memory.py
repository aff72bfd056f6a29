"""Peak memory of this process."""

import resource
from pathlib import Path


def peak_mb() -> float:
    """Of this program alone: `ru_maxrss` still counts what the process was before it became this program."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
