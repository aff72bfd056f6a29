"""Formats that a phone or a server runs: one file each."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from distill.registry import exporter, options

__all__ = ["check_exports", "exporter", "keeps_any_size", "refuse_missing", "refuse_unfit", "refuse_unwritable"]


def check_exports(specs: Iterable[Any], task: Any) -> None:
    """Before any work: see that every export of a recipe can be made.

    Args:
        specs: nodes of the recipe's section ``export``.
        task: what the network's output means.

    Raises:
        ExportError: a runtime is not installed, or settings are not for this task.
    """
    for spec in specs:
        refuse_missing(spec.name)
        refuse_unfit(spec.name, task, options(exporter.find(spec.name), spec))


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


def refuse_unwritable(name: str, artifact: Any, example: Any, task: Any) -> None:
    """Before any training: call the function ``writable(artifact, example, task)`` that the module of an exporter may
    have, with an artifact that has not been trained and a batch of inputs.

    Raises:
        ExportError: the network has no such form.
    """
    if writable := _beside(name, "writable"):
        writable(artifact, example, task)


def keeps_any_size(name: str) -> bool:
    """Whether an exporter's files read any height and width where the task does: ``ANY_SIZE = True`` in its module."""
    return bool(_beside(name, "ANY_SIZE"))


def _beside(name: str, what: str) -> Any:
    """A function or a constant of the exporter's module; None where it has none of that name."""
    return vars(sys.modules.get(exporter.find(name).__module__, object)).get(what)
