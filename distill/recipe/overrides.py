"""``key.path=value`` changes what a recipe says; ``+key.path=value`` adds an entry to it.

A scalar sets one value, a mapping replaces a section. Stages, losses, hooks, exports and teachers have names of the
recipe's own: an override without ``+`` has to meet one that is there, so that a misspelt stage is not a new stage.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Annotated, Any, get_args, get_origin

import yaml

from distill.errors import RecipeError
from distill.recipe.reading import Sections, parse
from distill.recipe.schema import Recipe
from distill.recipe.typed import annotations
from distill.registry import did_you_mean


def check_unique(overrides: Sequence[str]) -> None:
    """Check that no key is set twice.

    Raises:
        RecipeError: one is; which value would count is not obvious.
    """
    counts = Counter(override.partition("=")[0].lstrip("+") for override in overrides)
    for key, count in counts.items():
        if count > 1:
            raise RecipeError(f"'{key}' is set {count} times; keep one of them")


def apply_override(override: str, tree: Sections) -> None:
    """Change ``tree`` as one override says.

    Raises:
        RecipeError: the override is malformed, or names an entry that is not there.
    """
    key, equals, text = override.partition("=")
    adding, parts = key.startswith("+"), key.removeprefix("+").split(".")
    if not equals or not all(parts):
        raise RecipeError(f"'{override}' is not of the form key.path=value")
    # Behind a key, as in a file: a text such as `a: b` or a line break is then no mapping by accident.
    parsed = parse(f"value: {text}", f"the value of '{override}'")
    if _has_comment(text):
        raise RecipeError(f"'{override}': YAML takes what follows ' #' for a comment; put the value in double quotes")
    if list(parsed) != ["value"]:
        raise RecipeError(f"the value of '{override}' holds a line break")
    *parents, last = parts
    node: Any = tree
    hint: Any = Recipe
    for depth, part in enumerate(parents):
        _check_there(node, hint, parts, depth, override, adding=adding)
        hint = _inside(hint, part)
        node = _step(node, part, parts[: depth + 1], override)
    _check_there(node, hint, parts, len(parents), override, adding=adding)
    entry = _entry(node, last, override)
    if adding and isinstance(node, dict) and entry in node:
        raise RecipeError(f"'{override}': {'.'.join(parts)} is there already; leave out the '+'")
    node[entry] = parsed["value"]


def _has_comment(text: str) -> bool:
    """Whether YAML leaves out a part of a value: in quotes, ' #' is a part like any other."""
    line = f"value: {text}"
    tokens = [one for one in yaml.scan(line) if not isinstance(one, yaml.BlockEndToken | yaml.StreamEndToken)]
    return " #" in line[max(token.end_mark.index for token in tokens) :]


def _step(node: Any, part: str, place: Sequence[str], override: str) -> Any:
    """The mapping or list under ``part``, made if there is none; ``student: lenet5`` becomes ``{name: lenet5}``."""
    entry = _entry(node, part, override)
    if isinstance(node, dict) and node.get(entry) is None:
        node[entry] = {}
    value = node[entry]
    if isinstance(value, str):
        value = node[entry] = {"name": value}
    if not isinstance(value, dict | list):
        raise RecipeError(f"'{override}': {'.'.join(place)} is {value!r}, which has no settings")
    return value


def _check_there(node: Any, hint: Any, parts: Sequence[str], depth: int, override: str, *, adding: bool) -> None:
    """Check that a name of the recipe's own is there."""
    part, place = parts[depth], ".".join(parts[:depth])
    entry = _entry(node, part, override)
    if isinstance(node, dict) and entry not in node and not adding and _is_named_map(hint):
        clean = override.removeprefix("+")
        raise RecipeError(f"at {place}: there is no {_or_add(part, list(map(str, node)), clean)}")


def _or_add(part: str, there: list[str], override: str) -> str:
    known = did_you_mean(part, there) if there else f"'{part}'"
    return f"{known}. To add it, write +{override}"


def _entry(node: dict[Any, Any] | list[Any], part: str, override: str) -> Any:
    """The key of a mapping that reads as ``part``, since YAML takes ``1`` for a number; of a list, the index."""
    if isinstance(node, dict):
        return next((key for key in node if str(key) == part), part)
    if not part.isdecimal() or int(part) >= len(node):
        raise RecipeError(f"'{override}': a list of {len(node)} has no entry '{part}'")
    return int(part)


def _inside(hint: Any, part: str) -> Any:
    """The annotation of what stands under ``part``; Any where a component's signature decides."""
    hint = _stripped(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return annotations(hint).get(part, Any)
    if get_origin(hint) is dict:
        return get_args(hint)[1]
    return Any


def _is_named_map(hint: Any) -> bool:
    """Whether keys are names of the recipe's own: a dict of sections."""
    hint = _stripped(hint)
    return get_origin(hint) is dict and is_dataclass(_stripped(get_args(hint)[1]))


def _stripped(hint: Any) -> Any:
    """An annotation without its notes and without None."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    members = [member for member in get_args(hint) if member is not type(None)]
    if type(None) in get_args(hint) and len(members) == 1:
        return _stripped(members[0])
    return hint
