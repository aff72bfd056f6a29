"""A recipe as plain data: what is printed, remembered by artifacts, and hashed into the keys of steps."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from distill.recipe.schema import Recipe


def plain(section: Any) -> Any:
    """A typed section as JSON-able data: what keys are made from and artifacts remember."""
    return _paths_as_text(asdict(section))


def resolved(recipe: Recipe) -> str:
    """The recipe as YAML with everything filled in; it loads again as it is."""
    return OmegaConf.to_yaml(OmegaConf.create(plain(recipe)))


def key(*parts: Any) -> str:
    """A short name for everything in ``parts``, which is plain JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _paths_as_text(value: Any) -> Any:
    match value:
        case Path():
            return str(value)
        case dict():
            return {key: _paths_as_text(item) for key, item in value.items()}
        case list() | tuple():
            return [_paths_as_text(item) for item in value]
    return value
