"""Formats that a phone or a server runs: one file each."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from distill.registry import exporter

__all__ = ["exporter", "refuse_missing", "refuse_unfit"]


def refuse_missing(name: str) -> None:
    """Before any work: call the function ``installed`` that the module of an exporter has if its runtime is an extra.

    Raises:
        ExportError: the runtime is not installed.
    """
    if installed := _beside(name, "installed"):
        installed()


def refuse_unfit(name: str, task: Any, settings: Mapping[str, Any]) -> None:
    """Before any work: call the function ``fits(task, **settings)`` that the module of an exporter may have.

    Raises:
        ExportError: the settings are not for this task.
    """
    if fits := _beside(name, "fits"):
        fits(task, **settings)


def _beside(name: str, function: str) -> Callable[..., None] | None:
    """A function of the exporter's module."""
    return vars(sys.modules.get(exporter.find(name).__module__, object)).get(function)
