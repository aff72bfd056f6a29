"""Provenance of a result: enough to run it again on another machine."""

import platform
import subprocess
import sys
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from distill import __version__

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "onnxruntime")
ROOT = Path(__file__).parents[2]


def provenance() -> dict[str, Any]:
    """Commit, versions, machine, time and command line, as plain data. Never raises; unknown facts are None."""
    commit, dirty = _commit()
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": {"distill": __version__, "python": platform.python_version(), **{p: _version(p) for p in PACKAGES}},
        "machine": platform.node(),
        "system": platform.platform(),
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": sys.argv,
    }


def _commit() -> tuple[str | None, bool | None]:
    """The commit of this project and whether tracked files differ from it.

    An installed copy has none, even where its environment is inside another project's repository.
    """
    if not (ROOT / ".git").exists():
        return None, None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        described = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git here, or no commit yet
        return None, None
    return described.removesuffix("-dirty"), described.endswith("-dirty")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
