"""Where recipes lie: the repository's own by name, a user's by path."""

from pathlib import Path

from distill.errors import RecipeError
from distill.registry import did_you_mean

RECIPES = Path(__file__).parents[2] / "recipes"


def names() -> list[str]:
    """Every recipe of the repository; files named ``base`` are only inherited from, and sweeps are not recipes."""
    paths = (p.relative_to(RECIPES).with_suffix("") for p in RECIPES.rglob("*.yaml"))
    return sorted(p.as_posix() for p in paths if p.name != "base" and p.parts[0] != "sweeps")


def summary(name: str) -> str:
    """The first line of a recipe's header comment."""
    return find(name).read_text().partition("\n")[0].removeprefix("#").strip()


def find(name: str) -> Path:
    """The file of ``recipe=NAME`` or ``recipe=PATH.yaml``.

    Raises:
        RecipeError: there is no such file.
    """
    outside = name.endswith((".yaml", ".yml"))
    path = _user_file(name) if outside else RECIPES / f"{name}.yaml"
    if is_file(path):
        return path
    if not outside and Path(name).is_absolute():
        raise RecipeError(
            f"'{name}' is no recipe: give the path of a file that ends in .yaml, or a name that `list` shows"
        )
    raise RecipeError(f"no recipe file '{name}'" if outside else f"unknown recipe {did_you_mean(name, names())}")


def _user_file(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise RecipeError(f"recipe '{name}' is in the home of nobody here; write the whole path") from None


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have, too long or with a NUL, is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
