"""Real photographs that need no account and no download page: those of Debian's packages, and scikit-learn's two.

Licences, by package: lomiri-wallpapers and plasma-workspace-wallpapers CC-BY-SA and CC-BY, mate-backgrounds CC-BY,
CC-BY-SA, CC0 and GPL-2+ file by file, opencv-doc BSD and Apache-2.0. Paintings, renderings and second views of one
scene are left out.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from PIL import Image
from sklearn.datasets import load_sample_images

from distill.data._scan import pictures_below
from distill.data.decoding import open_picture, shown
from distill.errors import DataError

log = logging.getLogger(__name__)

Collection = Literal["scikit-learn", "debian"]
MOST = 200
"""Photographs of a folder that are used: all of them are in memory."""
SMALLEST = 16
"""Pixels that a side of a photograph needs."""
SIDE = 480
"""Pixels of the shorter side, which larger photographs are reduced to."""

_OPENCV = (
    "plant aero1 aloeL apple baboon board building butterfly fruits graf1 home left leuvenA licenseplate_motion messi5 "
    "orange rubberwhale1 smarties squirrel_cls stuff ela_original 000 001 002 scenetext01 scenetext02 scenetext03 "
    "scenetext04 scenetext05 scenetext06"
)
_LOMIRI = (
    "Bridge Dragonfly Picture_0B Picture_1A Wine aitzgorri free friends greentock life picosdeeuropa seeding sunset"
)
_PLASMA = "BytheWater ColdRipple ColorfulCups DarkestHour EveningGlow FallenLeaf Grey Kite OneStandsOut Path summer_1am"
_OPENCV_FOLDERS = ("alphamat/input_images", "data", "hfs/data", "text")
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "lomiri-wallpapers-16.04": tuple(f"backgrounds/{name}_by_*.jpg" for name in _LOMIRI.split()),
    "lomiri-wallpapers-20.04": tuple(f"backgrounds/{name}_by_*.jpg" for name in ("Infinite-Sea", "Kleiber")),
    "mate-backgrounds": ("backgrounds/mate/nature/*.jpg",),
    "plasma-workspace-wallpapers": tuple(
        f"wallpapers/{name}/contents/images/2560x1600.jpg" for name in _PLASMA.split()
    ),
    "opencv-doc": tuple(
        f"doc/opencv-doc/examples/{folder}/{name}.{kind}"
        for folder in _OPENCV_FOLDERS
        for name in _OPENCV.split()
        for kind in ("jpg", "png")
    ),
}
"""Package -> its photographs, as globs below /usr/share."""


def collected(source: Path | Collection, share: Path = Path("/usr/share")) -> list[Image.Image]:
    """Colour photographs, their shorter side of at most `SIDE` pixels.

    Args:
        source: a folder; "scikit-learn"; or "debian", for those of all `PACKAGES` and of scikit-learn.
        share: where packages are installed.

    Raises:
        DataError: there are none, a package is not installed, or a picture is damaged or too small.
    """
    if source == "scikit-learn":
        return list(_samples())
    if source == "debian":
        return [*map(_opened, _installed(share)), *_samples()]
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise DataError(f"{source} (data.root) is no folder")
    found = pictures_below(folder)
    if not found:
        raise DataError(f"{source} (data.root) holds no pictures")
    used = min(MOST, len(found))
    if used < len(found):
        log.info("%d of the %d pictures in %s are used, spread evenly", used, len(found), shown(folder))
    return [_opened(found[number * len(found) // used]) for number in range(used)]


def _installed(share: Path) -> Iterator[Path]:
    found = {package: [p for glob in globs for p in sorted(share.glob(glob))] for package, globs in PACKAGES.items()}
    if missing := [package for package, paths in found.items() if not paths]:
        raise DataError(
            f"data.photographs=debian needs photographs of packages that are not installed: "
            f"apt install {' '.join(missing)}"
        )
    for paths in found.values():
        yield from paths


def _samples() -> Iterator[Image.Image]:
    return (_reduced(Image.fromarray(pixels)) for pixels in load_sample_images().images)


def _opened(path: Path) -> Image.Image:
    photo = open_picture(path, side=SIDE).convert("RGB")
    if min(photo.size) < SMALLEST:
        size = f"{photo.width}x{photo.height}"
        raise DataError(
            f"{shown(path)} is of {size} pixels: too small for a photograph of at least {SMALLEST}; remove it"
        )
    return _reduced(photo)


def _reduced(photo: Image.Image) -> Image.Image:
    if (factor := SIDE / min(photo.size)) >= 1:
        return photo
    return photo.resize((round(photo.width * factor), round(photo.height * factor)), Image.Resampling.BILINEAR)
