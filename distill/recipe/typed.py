"""Plain data from YAML as the dataclasses of `distill.recipe.schema`, every mistake named with its place.

Annotations are the schema: types, ranges (`distill.registry.ranges`), and the registry in which the name of a section
is looked up (``Annotated[Loss, loss]``), whose signature adds the component's own settings.
"""

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from distill.errors import RecipeError
from distill.recipe.schema.components import Component
from distill.registry import Registry, call, codec, did_you_mean, schema
from distill.registry.ranges import FINITE, SHOWN, FileOrName, Range, Stages

FROM_DATA_AND_TASK = ("num_classes", "channels", "anchors", "bins")
"""Arguments of networks that a recipe leaves open."""
LARGEST = 1e300
"""Of a float: whole numbers of YAML have no bound."""


def typed(value: Any, hint: Any, place: str, key: str | None = None) -> Any:
    """``value`` as what ``hint`` says.

    Args:
        value: mappings, lists and scalars.
        hint: an annotation: a scalar type, Path, Literal, list, tuple, dict, a union, a dataclass, or Any.
        place: dotted path in the recipe, for messages.
        key: the name under which a named section stands, which is its component's where it says no other.

    Raises:
        RecipeError: unknown name or key, wrong type, or a number outside of its range.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        return _annotated(value, arguments[0], arguments[1:], place, key)
    if origin in (Union, types.UnionType):
        return _union(value, arguments, place, key)
    if origin is Literal:
        return _literal(value, arguments, place)
    if origin in (list, tuple):
        return origin(typed(item, arguments[0], f"{place}[{i}]") for i, item in enumerate(_list(value, place)))
    if origin is dict:
        return _mapping(value, arguments[0], arguments[1], place)
    if is_dataclass(hint):
        return section(value, hint, place)
    return _SCALARS[hint](value, place)


def section(value: Any, kind: Any, place: str) -> Any:
    """A mapping as the dataclass ``kind``."""
    if not isinstance(value, Mapping):
        raise RecipeError(
            f"at {place}: {_shown(value)} stands where a section is expected{_indentation(value, place, kind)}"
        )
    known = {f.name: f for f in fields(kind)}
    for key in value:
        if key not in known:
            raise RecipeError(f"at {place or 'the top'}: {_unknown(key, value[key], list(known))}")
    if missing := [name for name, f in known.items() if _needed(f) and name not in value]:
        raise RecipeError(f"at {place or 'the top'}: '{missing[0]}' is missing; write {missing[0]}: VALUE")
    hints = annotations(kind)
    made = {key: typed(value[key], hints[key], _join(place, key)) for key in known if key in value}
    try:
        return kind(**made)
    except RecipeError as error:
        raise RecipeError(f"at {place}: {error}" if place else str(error)) from None


def built(section: Any, registry: Registry, available: Mapping[str, Callable[[], Any]]) -> Any:
    """The component that a name, or a mapping of a name and settings, stands for.

    Args:
        section: plain data, for example what an artifact says about its task.
        registry: where to look up the name.
        available: what can be injected.

    Raises:
        RecipeError: an unknown name or setting.
    """
    spec = _named(section, Component, registry, registry.decorator, None)
    return call(registry.find(spec.name), spec, available)


@lru_cache(maxsize=256)  # every section of a component has a class of its own
def annotations(kind: Any) -> Mapping[str, Any]:
    """The annotations of a dataclass, ranges included."""
    return get_type_hints(kind, include_extras=True)


def _annotated(value: Any, hint: Any, notes: tuple[Any, ...], place: str, key: str | None) -> Any:
    for note in notes:
        if isinstance(note, Registry):
            return _named(value, hint, note, place, key)
    result = typed(value, hint, place, key)
    for note in notes:
        if isinstance(note, Range):
            note.check(result, f"at {place}: {place.rpartition('.')[2]}")
        if isinstance(note, FileOrName) and result:
            result = str(_path(result, place))
        if isinstance(note, Stages):
            stages = result.split() if isinstance(result, str) else result
            if not stages:
                raise RecipeError(f"at {place}: a codec has at least one stage")
            for stage in stages:
                _stage(stage, place)
    return result


def _stage(text: str, place: str) -> None:
    """Check one stage of a codec."""
    try:
        codec.parse(text)
    except RecipeError as error:
        raise RecipeError(f"at {place}: {error}") from None


def _named(value: Any, base: type, registry: Registry, place: str, key: str | None) -> Any:
    """A section that names a component: its settings stand beside those that all of its kind have."""
    value = {} if value is None and key else {"name": value} if isinstance(value, str) else value
    if not isinstance(value, Mapping):
        hint = _indentation(value, place, base)
        raise RecipeError(f"at {place}: {_shown(value)} stands where settings of a {registry.kind} are expected{hint}")
    name = value.get("name", key or registry.default)
    if not isinstance(name, str):
        wrong = next((_unknown(k, v, ["name"]) for k, v in value.items() if _glued(k, v, ["name"])), None)
        raise RecipeError(f"at {place}: {wrong or f'no name; write {place}: {{name: NAME, ...}}'}")
    try:
        registry.check(name)
        # Networks of other libraries do not follow our rule of signatures: their settings go under `arguments`.
        network = registry.kind == "network"
        own, inferred = not network or name in registry.names(), FROM_DATA_AND_TASK if network else ()
        kind = schema(registry.signature(name), base, inferred=inferred) if own else base
    except RecipeError as error:
        raise RecipeError(f"at {place}: {error}") from None
    return section({**value, "name": name}, kind, place)


def _mapping(value: Any, key_hint: Any, hint: Any, place: str) -> dict[Any, Any]:
    if value is None:  # a section all of whose lines are commented out
        return {}
    if not isinstance(value, Mapping):
        raise RecipeError(f"at {place}: {_shown(value)} stands where a mapping from names to settings is expected")
    inner = _dataclass_in(hint)
    made = {}
    for key, item in value.items():
        key = typed(key, key_hint, place)
        if inner:
            _check_key(key, place)
        made[key] = typed(item, hint, _join(place, key), key if inner else None)
    return made


def _check_key(key: str, place: str) -> None:
    """A key is an address in overrides, a folder and a metric's name: dots and slashes would cut it in two."""
    if not key or set("./:\\") & set(key) or not key.isprintable():
        short = "".join(c if c.isalnum() or c == "_" else " " for c in key).split()
        raise RecipeError(
            f"at {place}: {key!r} cannot be a key of '{place}'; "
            f"write {short[-1] if short else 'NAME'}: {{name: {key!r}, ...}}"
        )


def _union(value: Any, members: tuple[Any, ...], place: str, key: str | None) -> Any:
    if value is None and type(None) in members:
        return None
    possible = [member for member in members if member is not type(None)]
    exact = [member for member in possible if type(value) is (get_origin(member) or member)]
    return typed(value, (exact or possible)[0], place, key)


def _literal(value: Any, valid: tuple[Any, ...], place: str) -> Any:
    for one in valid:
        if type(value) is type(one) and value == one:
            return one
    for one in valid:
        if str(value) == str(one):  # "8" from an environment variable
            return one
    raise RecipeError(f"at {place}: {_shown(value)} is not one of {', '.join(map(str, valid))}")


def _list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise RecipeError(f"at {place}: {_shown(value)} stands where a list is expected; write [{value}]")
    return list(value)


def _bool(value: Any, place: str) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    raise RecipeError(f"at {place}: {_shown(value)} is neither true nor false")


def _int(value: Any, place: str) -> int:
    if isinstance(value, str):
        value = _number(value, int)
    if isinstance(value, bool) or not isinstance(value, int):
        raise RecipeError(f"at {place}: {_shown(value)} is not a whole number")
    return value


def _float(value: Any, place: str) -> float:
    if isinstance(value, str):
        value = _number(value, float)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecipeError(f"at {place}: {_shown(value)} is not a number")
    if value not in FINITE or abs(value) > LARGEST:
        raise RecipeError(f"at {place}: {place.rpartition('.')[2]} is {str(value)[:SHOWN]}, but must be finite")
    return float(value)


def _number(text: str, kind: Callable[[str], Any]) -> Any:
    """The number that a text holds, for example one of an environment variable; the text if there is none."""
    try:
        return kind(text)
    except ValueError:
        return text


def _str(value: Any, place: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RecipeError(f"at {place}: {_shown(value)} is not a text")
    return str(value)


def _path(value: Any, place: str) -> Path:
    if not isinstance(value, str | int | Path) or isinstance(value, bool) or not str(value) or "\0" in str(value):
        raise RecipeError(f"at {place}: {_shown(value)} is not a path")
    try:
        return Path(str(value)).expanduser()
    except RuntimeError:
        raise RecipeError(f"at {place}: {_shown(value)} is in the home of nobody here; write the whole path") from None


_SCALARS: Mapping[Any, Callable[[Any, str], Any]] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
    Path: _path,
}


def _needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _unknown(key: Any, value: Any, valid: list[str]) -> str:
    if glued := _glued(key, value, valid):
        return f"'{key}' lacks a blank after its colon; write {glued}"
    return f"unknown key {did_you_mean(str(key), valid)}"


def _glued(key: Any, value: Any, valid: list[str]) -> str | None:
    """``{name:kd}`` is YAML for the key ``name:kd`` without a value."""
    before, colon, after = str(key).partition(":")
    return f"{before}: {after}" if value is None and colon and before in valid else None


def _indentation(value: Any, place: str, kind: type) -> str:
    """A hint, where indentation is lost: settings stand beside their section, and the section is empty."""
    name = place.rpartition(".")[2]
    if value is None:
        return "; are its settings indented below it?"
    if "." in place and name in {f.name for f in fields(kind)}:
        return f"; '{name}' is a setting: is it indented below its section?"
    return ""


def _dataclass_in(hint: Any) -> bool:
    return is_dataclass(get_args(hint)[0] if get_origin(hint) is Annotated else hint)


def _shown(value: Any) -> str:
    """A value as YAML would write it, cut to what a message holds."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _join(place: str, key: Any) -> str:
    return f"{place}.{key}" if place else str(key)
