"""A recipe is one whole experiment. Here it is found, inherited, overridden and checked before anything runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from distill.errors import RecipeError
from distill.recipe.checks import check
from distill.recipe.files import find
from distill.recipe.overrides import apply_override
from distill.recipe.reading import Sections, interpolated, sections
from distill.recipe.schema import Compression, Recipe
from distill.recipe.typed import section
from distill.registry import task


def load(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply ``key.path=value`` overrides, check every name, key, type and range.

    Args:
        name: a recipe of the repository (``fashion_mnist/resnet20_shufflenet``), or the path of a YAML file.
        overrides: ``stages.distill.epochs=5`` sets one value; ``student={name: lenet5}`` replaces a section;
            ``+stages.extra={epochs: 1}`` adds one.

    Raises:
        RecipeError: names the recipe, the place in it, what is wrong and what would be right.
    """
    path = find(name)
    with _named(name):
        tree = _tree(path, overrides)
        tree.setdefault("recipe", path.stem if name.endswith((".yaml", ".yml")) else name)
        tree.setdefault("task", task.default)
        recipe = cast(Recipe, section(tree, Recipe, ""))
        check(recipe)
        return recipe


def load_compression(name: str, overrides: Sequence[str] = ()) -> Compression:
    """What a recipe does to a finished network: its sections ``compress`` and ``export``; it need have no others.

    Args:
        name: as for `load`.
        overrides: as for `load`.

    Raises:
        RecipeError: as for `load`, or the recipe has no hooks.
    """
    path = find(name)
    with _named(name):
        tree = _tree(path, overrides)
        return cast(
            Compression, section({key: tree[key] for key in ("compress", "export") if key in tree}, Compression, "")
        )


def _tree(path: Path, overrides: Sequence[str]) -> Sections:
    tree = sections(path)
    for override in overrides:
        apply_override(override, tree)
    return interpolated(tree)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Say which recipe a mistake is in."""
    try:
        yield
    except RecipeError as error:
        said = " ".join(str(error).split())
        if said.startswith(f"{name} "):  # a file that is named already
            raise RecipeError(said) from None
        raise RecipeError(f"recipe '{name}'{'' if said.startswith('at ') else ':'} {said}") from None
