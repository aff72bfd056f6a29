"""Fill a recipe's teacher cache ahead of its training; goes on where it was stopped."""

from argparse import ArgumentParser, Namespace

from distill.cli.arguments import recipe_arguments
from distill.recipe.loading import load


def add_arguments(parser: ArgumentParser) -> None:
    """The recipe, and changes to it."""
    parser.add_argument("overrides", nargs="+", metavar="recipe=NAME key.path=value")


def run(options: Namespace) -> None:
    """Ask every teacher about every view of every training image."""
    name, overrides = recipe_arguments(options.overrides)
    recipe = load(name, overrides)
    from distill.pipeline.precompute import fill

    fill(recipe)
