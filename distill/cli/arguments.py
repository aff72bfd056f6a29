"""Words of the command line: a recipe and what changes it, numbers, folders."""

from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path

from distill.errors import RecipeError


def recipe_arguments(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """``recipe=NAME key=value ...`` in any order -> the name and the overrides.

    Raises:
        RecipeError: no recipe, two of them, or a key that is set twice.
    """
    from distill.recipe.overrides import check_unique

    recipes = [a.removeprefix("recipe=") for a in arguments if a.startswith("recipe=")]
    if len(recipes) != 1:
        given = " ".join(arguments)
        raise RecipeError(
            f"'{given}' names {len(recipes)} recipes: write recipe=NAME, once; python train.py lists them"
        )
    overrides = [a for a in arguments if not a.startswith("recipe=")]
    check_unique(overrides)
    return recipes[0], overrides


def positive(text: str) -> int:
    """The type of an option that is a whole number of at least 1.

    Raises:
        ArgumentTypeError: anything else.
    """
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"'{text}' is no number of at least 1")
    return int(text)


def folder(text: str) -> Path:
    """The type of an option that names a folder.

    Raises:
        ArgumentTypeError: no name.
    """
    if not text:
        raise ArgumentTypeError("an empty name is no folder; '.' is the one where you are")
    return Path(text)
