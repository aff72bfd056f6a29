"""Names of operators and the functions that compute them."""

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])
OPERATORS: dict[str, Callable[..., Any]] = {}


def operator(*names: str) -> Callable[[Function], Function]:
    """Decorator: the function computes the ATen operators of these names."""

    def register(function: Function) -> Function:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


def pair(value: int | list[int]) -> tuple[int, int]:
    """Of rows and columns; one number counts for both."""
    first, *rest = [value] if isinstance(value, int) else value
    return first, rest[0] if rest else first
