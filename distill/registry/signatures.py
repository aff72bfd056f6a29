"""What a component's signature says: the arguments that the framework injects, and the settings of a recipe.

A signature is taken from a component, or read from its source: then neither its module nor torch is imported.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from distill.registry.ranges import Range

EMPTY = inspect.Parameter.empty


@dataclass(frozen=True)
class Setting:
    """One keyword-only parameter."""

    name: str
    hint: Any
    """Its annotation, with ranges; without one, the type of its default."""
    default: Any = EMPTY


@dataclass(frozen=True)
class Signature:
    """The parameters of a component, by who gives them."""

    injected: tuple[str, ...]
    """Positional parameters: the framework injects them."""
    called: tuple[str, ...]
    """Positional parameters of ``forward``, where there is one."""
    settings: tuple[Setting, ...]
    """Keyword-only parameters: a recipe may set them."""
    summary: str = ""
    """First paragraph of the docstring of the file: what the component is and where it comes from."""

    @property
    def required(self) -> tuple[str, ...]:
        """All arguments to inject: when built and, if there is a ``forward``, when called."""
        return self.injected + self.called


def setting(name: str, hint: Any, default: Any) -> Setting:
    """A setting whose missing annotation is made up for by its default."""
    if hint is EMPTY:
        hint = Any if default is None or default is EMPTY else type(default)
    return Setting(name, hint, default)


def of(component: Callable[..., Any]) -> Signature:
    """The signature of a component that is imported already."""
    hints = get_type_hints(component.__init__ if inspect.isclass(component) else component, include_extras=True)
    settings = tuple(
        setting(p.name, hints.get(p.name, EMPTY), p.default) for p in parameters(component) if p.kind is p.KEYWORD_ONLY
    )
    forward = getattr(component, "forward", None)
    text = inspect.getdoc(inspect.getmodule(component)) or ""
    return Signature(injected(component), injected(forward) if forward else (), settings, first_paragraph(text))


def first_paragraph(docstring: str) -> str:
    """The first paragraph on one line."""
    return " ".join(docstring.partition("\n\n")[0].split())


def injected(component: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the positional parameters."""
    return tuple(p.name for p in parameters(component) if p.kind is p.POSITIONAL_OR_KEYWORD)


def parameters(component: Callable[..., Any]) -> list[inspect.Parameter]:
    """Every parameter but ``self``."""
    return [p for p in inspect.signature(component).parameters.values() if p.name != "self"]


def described(setting: Setting) -> str:
    """A setting as a table shows it: name, type, default and range."""
    hint, notes = setting.hint, tuple[Any, ...]()
    if get_origin(hint) is Annotated:
        hint, notes = get_args(hint)[0], get_args(hint)[1:]
    default = "" if setting.default is EMPTY else f" = {_written(setting.default)}"
    ranges = "".join(f" ({note})" for note in notes if isinstance(note, Range))
    return f"{setting.name}: {_type_name(hint)}{default}{ranges}"


def _type_name(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return "any"
    if origin is Annotated:
        ranges = "".join(f" {note}" for note in arguments[1:] if isinstance(note, Range))
        return _type_name(arguments[0]) + ranges
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (Union, UnionType):
        return " | ".join("null" if member is type(None) else _type_name(member) for member in arguments)
    if origin:
        inner = ", ".join("..." if one is ... else _type_name(one) for one in arguments)
        return f"{origin.__name__}[{inner}]"
    return str(getattr(hint, "__name__", hint))


def _written(value: Any) -> str:
    """A default as a recipe writes it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case tuple() | list():
            return f"[{', '.join(map(_written, value))}]"
    return str(value)
