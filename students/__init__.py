"""Compact networks, one file per family: ``from students import shufflenet_v2``.

Every network is a function of keyword-only settings that answers an ``nn.Module`` whose ``stages`` names its stages,
early to late. Names that are not ours are torchvision's networks for classification,
segmentation and optical flow.
"""

from collections.abc import Callable
from typing import Any

from distill.registry import Registry


def _torchvision(name: str) -> Callable[..., Any] | None:
    import torchvision  # seconds to import: a name of ours needs none of it

    models = torchvision.models
    for kind in (models, models.segmentation, models.optical_flow):
        if name in models.list_models(module=kind):
            return models.get_model_builder(name)
    return None


student = Registry("network", "student", [__name__], fallback=_torchvision)


def __getattr__(name: str) -> Callable[..., Any]:
    if name.startswith("_") or name not in student.names():
        raise AttributeError(f"module 'students' has no network '{name}'; it has {', '.join(student.names())}")
    return student.find(name)
