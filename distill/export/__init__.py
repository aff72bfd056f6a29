"""Formats that a phone or a server runs: one file each."""

import sys

from distill.registry import exporter

__all__ = ["exporter", "refuse_missing"]


def refuse_missing(name: str) -> None:
    """Before any work: call the function ``installed`` that the module of an exporter has if its runtime is an extra.

    Raises:
        ExportError: the runtime is not installed.
    """
    module = vars(sys.modules.get(exporter.find(name).__module__, object))
    if "installed" in module:
        module["installed"]()
