"""``python train.py``: one command from a recipe to a small network that ships."""

from collections.abc import Sequence

from rich.table import Table

from distill.cli.arguments import recipe_arguments
from distill.cli.guard import guarded
from distill.console import console

USAGE = """\
python train.py recipe=NAME [key.path=value ...] [--debug]

  recipe=NAME       a recipe from the list below, or the path of a YAML file
  key.path=value    sets one value:       stages.distill.epochs=5
                    replaces a section:   'student={name: lenet5}'
  +key.path=value   adds an entry:        '+compress.prune={}'
  --debug           shows the traceback of an error

python -m distill plan recipe=NAME   shows the steps, without doing them
python -m distill show recipe=NAME   prints a recipe with everything filled in
python -m distill list losses        shows what a recipe may name
python -m distill --help             all commands
"""


def train(arguments: Sequence[str]) -> int:
    """``train.py``: run a recipe; without one, list the recipes. Returns the exit code."""
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    if "--version" in arguments:
        from distill import __version__

        return guarded(lambda: console.print(f"distill {__version__}"), debug=debug)
    if not arguments or {"-h", "--help"} & set(arguments):
        return guarded(_help, debug=debug)
    return guarded(lambda: _train(arguments), debug=debug)


def _train(arguments: Sequence[str]) -> None:
    from distill.recipe.loading import load

    name, overrides = recipe_arguments(arguments)
    recipe = load(name, overrides)
    from distill.pipeline.run import run  # seconds to import: a misspelt recipe is named before

    run(recipe)


def _help() -> None:
    from distill.recipe.files import names, summary

    console.print(USAGE)
    table = Table("recipe", "what it does", box=None, pad_edge=False)
    for name in names():
        table.add_row(name, summary(name))
    console.print(table)
