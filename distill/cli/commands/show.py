"""Print a recipe with everything filled in."""

from argparse import ArgumentParser, Namespace

from distill.cli.arguments import recipe_arguments
from distill.console import console
from distill.recipe.loading import load
from distill.recipe.plain import resolved


def add_arguments(parser: ArgumentParser) -> None:
    """The recipe, and changes to it."""
    parser.add_argument("overrides", nargs="+", metavar="recipe=NAME key.path=value")


def run(options: Namespace) -> None:
    """Print it as YAML, which loads again as it is."""
    name, overrides = recipe_arguments(options.overrides)
    console.print(resolved(load(name, overrides)), soft_wrap=True)
