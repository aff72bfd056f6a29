"""Compact networks, one file per family: ``from students import shufflenet_v2``.

Every network is a function of keyword-only settings that returns an ``nn.Module`` whose ``stages`` names its stages,
early to late. In a recipe, names that are not here are torchvision's networks for classification, segmentation and
optical flow.
"""

import re
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distill.registry import Registry


def _torchvision(name: str) -> Callable[..., Any] | None:
    if name not in _torchvision_names():
        return None
    import torchvision  # seconds to import: a name of ours needs none of it

    return torchvision.models.get_model_builder(name)


@cache
def _torchvision_names() -> frozenset[str]:
    """Names of torchvision's networks for classification, segmentation and optical flow, read from its source."""
    spec = find_spec("torchvision")
    folder = Path(spec.submodule_search_locations[0], "models") if spec and spec.submodule_search_locations else Path()
    pattern = re.compile(r"^@register_model\(\)\n(?:.*\n)*?def (\w+)", re.MULTILINE)
    files = (file for kind in (".", "segmentation", "optical_flow") for file in Path(folder, kind).glob("*.py"))
    return frozenset(name for file in files for name in pattern.findall(file.read_text(encoding="utf-8")))


student = Registry("network", "student", [__name__], fallback=_torchvision, foreign=_torchvision_names)


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return student.names()
    if name.startswith("_") or name not in student.names():
        raise AttributeError(f"module 'students' has no network '{name}'; it has {', '.join(student.names())}")
    return student.find(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *student.names()})
