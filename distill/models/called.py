"""What a hook with keywords is given: a network may call its layers by position or as ``conv(input=x)``."""

from collections.abc import Mapping
from typing import Any


def first_input(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """A module's first input; None without any."""
    return next(iter((*arguments, *named.values())), None)
