"""Shared libraries compiled from the package's C++ sources by the machine's own compiler, when first used, and kept."""

import hashlib
import os
import shlex
import subprocess
from pathlib import Path

from distill.files.atomic import replacing

FLAGS = ("-O3", "-march=native", "-fopenmp", "-std=c++17", "-Wno-psabi", "-shared", "-fPIC")


def built(source: Path, folder: Path) -> Path:
    """The shared library in that folder, compiled unless one of this source, compiler and processor is there.

    Raises:
        OSError: there is no compiler, or the folder cannot be written.
        subprocess.CalledProcessError: the compiler refuses.
    """
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    # What the compiler defines tells its version and what the processor can do.
    macros = _run([*compiler, *FLAGS[:4], "-dM", "-E", "-x", "c++", os.devnull])
    key = hashlib.sha256(repr((source.read_text(), FLAGS, macros)).encode()).hexdigest()[:16]
    path = folder / f"{source.stem}-{key}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            _run([*compiler, *FLAGS, "-o", str(part), str(source)])
    return path


def reason(error: Exception) -> str:
    """The first line of what the compiler or the system said."""
    return (getattr(error, "stderr", "") or str(error)).strip().partition("\n")[0]


def cache_folder() -> Path:
    """Where compiled libraries are kept: in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distill"


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
