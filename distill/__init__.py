"""Large vision networks in, small ones that ship out: distil, compress, export, measure.

The public names are imported on first use, so that ``students`` can be used with nothing but torch installed, and
`predict` without it.
"""

import os
from importlib import import_module
from typing import Any

# ONNX Runtime opens a telemetry client while it is imported, unless this is set before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = ["Artifact", "load", "load_recipe", "predict", "run"]

_PUBLIC = {
    "Artifact": ("distill.artifact", "Artifact"),
    "load": ("distill.artifact", "load"),
    "load_recipe": ("distill.recipe.loading", "load"),
    "predict": ("distill.pipeline.predict", "predict"),
    "run": ("distill.pipeline.run", "run"),
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'distill' has no attribute '{name}'")
    module, attribute = _PUBLIC[name]
    if name == "predict" and import_module("distill.runtime.predict").torch_is_missing():
        module = "distill.runtime.predict"
    return getattr(import_module(module), attribute)
