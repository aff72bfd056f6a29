"""The boundary to the person at the terminal: arguments in, one clear line and an exit code out."""

import logging
import sys
import traceback
from collections.abc import Callable, Sequence

from rich.markup import escape
from rich.table import Table

from distill.console import console, quiet_libraries
from distill.errors import DistillError, RecipeError
from distill.parent import end_with_parent

USAGE = """\
[bold]python train.py recipe=NAME[/bold] [key.path=value ...] [--debug]

  recipe=NAME             a recipe from the list below, or the path of a YAML file of your own
  key.path=value          sets one value of the recipe:      stages.distill.epochs=5  data.limit=20000
                          or replaces one of its sections:   student={name: lenet5}
  --debug                 shows the traceback of an error

python -m distill show recipe=NAME     prints a recipe with everything filled in
python -m distill list losses          what a recipe may name (recipes, losses, students, hooks, codecs, data)
"""


def guarded(work: Callable[[], None], *, debug: bool) -> int:
    """Run ``work``; an error becomes one line on stderr and an exit code, nothing else.

    Returns:
        0 if all went well, 2 for a mistake of the user, 1 for a failure, 130 after Ctrl-C.
    """
    end_with_parent()
    try:
        quiet_libraries(debug=debug)
        work()
        return 0
    except DistillError as error:
        return _failed(str(error), error.exit_code, debug)
    except KeyboardInterrupt:
        return _failed("stopped; the same command goes on from the last checkpoint", 130, debug)
    except OSError as error:
        place = error.filename2 or error.filename  # of a copy that failed, the second is where it should have gone
        what = f"{error.strerror}: {place}" if place else str(error)
        return _failed(f"{what}; make room or choose output=FOLDER, finished steps are kept", 1, debug)
    except Exception as error:
        return _failed(f"unexpected {type(error).__name__}: {error} (--debug shows where)", 1, debug)


def train(arguments: Sequence[str]) -> int:
    """``train.py``: without a recipe, the list of recipes."""
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    if not arguments or {"-h", "--help"} & set(arguments):
        return guarded(_help, debug=debug)
    return guarded(lambda: _train(arguments), debug=debug)


def recipe_arguments(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """``recipe=NAME key=value ...`` in any order -> the name and the overrides.

    Raises:
        RecipeError: no recipe, two of them, or an argument that is not of the form key=value.
    """
    recipes = [a.removeprefix("recipe=") for a in arguments if a.startswith("recipe=")]
    if len(recipes) != 1:
        given = " ".join(arguments)
        raise RecipeError(
            f"'{given}' names {len(recipes)} recipes: write recipe=NAME, once; without arguments I list them"
        )
    return recipes[0], [a for a in arguments if not a.startswith("recipe=")]


def _train(arguments: Sequence[str]) -> None:
    from distill.pipeline.run import run
    from distill.recipe.loading import load

    name, overrides = recipe_arguments(arguments)
    run(load(name, overrides))


def _help() -> None:
    from distill.recipe.files import names, summary

    console.print(USAGE)
    table = Table("recipe", "what it does", box=None, pad_edge=False)
    for name in names():
        table.add_row(name, escape(summary(name)))
    console.print(table)


def _failed(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    logging.shutdown()
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return code
