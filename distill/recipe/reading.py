"""Recipe files as plain data: YAML, one level of inheritance, and interpolation."""

import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationResolutionError,
    InterpolationToMissingValueError,
    OmegaConfBaseException,
)

from distill.errors import RecipeError
from distill.recipe.files import find, is_file

Sections = dict[str, Any]

_PROBLEMS = (
    (r"'\\t'|tab character", "a tab, where YAML wants blanks"),
    (r"cannot start any token", "a text that begins with a character of YAML's own; put it in quotes"),
    (
        r"mapping values are not allowed",
        "a second colon, or a line further in than the ones beside it; put texts with colons in quotes",
    ),
    (r"could not find expected ':'", "a key without its colon"),
    (
        r"expected <block end>|expected the node content|expected <document start>|did not find expected key",
        "not indented as the lines before it",
    ),
    (r"expected ',' or|expected node content|expected the node content", "a bracket or brace that is not closed"),
    (r"unexpected end of stream|while scanning a quoted scalar", "a quotation mark that is not closed"),
    (r"undefined alias", "an alias (*name) without its anchor (&name)"),
    (r"unhashable|not acceptable", "a key that is a list or a mapping"),
)
"""PyYAML's words, and what has usually happened."""


def sections(path: Path) -> Sections:
    """The sections of a recipe; ``base: other`` takes every one that it does not write from ``other``.

    Sections are replaced whole and a base has no base, so each section stands complete in one of two files.

    Raises:
        RecipeError: a file cannot be read or holds no sections, or a base has a base.
    """
    own = read(path)
    if base := own.pop("base", None):
        beside = path.parent / f"{base}.yaml"
        inherited = read(beside if is_file(beside) else find(str(base)))
        if "base" in inherited:
            raise RecipeError(f"base '{base}' has a base of its own; keep recipes at most two files deep")
        return inherited | own
    return own


def read(path: Path) -> Sections:
    """The mapping that a YAML file holds, interpolations as they are written.

    Raises:
        RecipeError: the file cannot be read, is not YAML, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path} is not a text in UTF-8: byte {error.start} is {error.object[error.start]:#04x}"
        ) from None
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}") from None
    found = parse(text, str(path))
    if not isinstance(found, dict):
        what = "is empty" if found is None else f"holds {type(found).__name__}, not sections"
        raise RecipeError(f"{path} {what}; the recipes that python train.py lists are examples")
    return found


def parse(text: str, what: str) -> Any:
    """The value that a YAML text stands for; None if it is empty.

    Raises:
        RecipeError: the text is not YAML; the message begins with ``what`` and says the line.
    """
    try:
        if not re.sub(r"#.*", "", text).strip():
            return None
        node = OmegaConf.create(text)
        return OmegaConf.to_container(node, resolve=False)
    except yaml.MarkedYAMLError as error:
        raise RecipeError(f"{what} is not YAML: {_problem(error, text)}") from None
    except RecursionError:
        raise RecipeError(f"{what} is not a recipe: it is nested too deeply") from None
    except Exception as error:  # PyYAML's constructors raise whatever int(), date() and dict() do
        raise RecipeError(f"{what} cannot be read as YAML: {_first_line(error)}") from None


def interpolated(tree: Sections) -> Sections:
    """The tree with every ``${...}`` replaced: ``${seed}``, ``${oc.env:NAME}``.

    Raises:
        RecipeError: an interpolation names nothing, or an environment variable is not set.
    """
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(tree), resolve=True, throw_on_missing=True)
    except (InterpolationKeyError, InterpolationToMissingValueError) as error:
        raise RecipeError(f"at {error.full_key}: '${{...}}' names a value that the recipe does not have") from None
    except InterpolationResolutionError as error:
        raise RecipeError(f"at {error.full_key}: {_unresolved(error)}") from None
    except OmegaConfBaseException as error:
        place = f"at {error.full_key}: " if error.full_key else ""
        raise RecipeError(f"{place}{_first_line(error)}") from None
    except RecursionError:
        raise RecipeError("'${...}' refers to itself") from None
    return dict(resolved)  # type: ignore[arg-type]


def _unresolved(error: Exception) -> str:
    if name := re.search(r"[Ee]nvironment variable '(.*?)'", str(error)):
        return (
            f"the environment variable {name[1]} is not set; set it, or write a value to take without it: "
            f"${{oc.env:{name[1]},VALUE}}"
        )
    if kind := re.search(r"Unsupported interpolation type (.*)", str(error)):
        return f"unknown '${{{kind[1]}:...}}'; there are ${{KEY}}, another value of the recipe, and ${{oc.env:NAME}}"
    return _first_line(error)


def _problem(error: yaml.MarkedYAMLError, text: str) -> str:
    said = f"{error.context or ''} {error.problem or ''}"
    mark = error.problem_mark
    if mark and "cannot start any token" in said:  # libyaml does not say which character
        said += repr(text.splitlines()[mark.line][mark.column : mark.column + 1])
    words = next((words for pattern, words in _PROBLEMS if re.search(pattern, said)), error.problem or "cannot be read")
    if not mark:
        return words
    if "bracket" in words and any("${" in line for line in text.splitlines()[mark.line : mark.line + 1]):
        words += "; between brackets and braces '${...}' needs quotes"
    return f"line {mark.line + 1}, column {mark.column + 1}: {words}"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
