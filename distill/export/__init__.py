"""Formats that a phone or a server runs: one file each."""

import sys

from distill.registry import exporter

__all__ = ["exporter", "refuse_missing"]


def refuse_missing(name: str) -> None:
    """Before any work: an exporter whose runtime is an extra has a function ``installed`` beside it, which is called.

    Raises:
        ExportError: the runtime is not installed.
    """
    beside = vars(sys.modules.get(exporter.find(name).__module__, object))
    if "installed" in beside:
        beside["installed"]()
