"""Show what a recipe would do, step by step, without doing it."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable

from distill.cli.arguments import recipe_arguments
from distill.recipe.loading import load


def add_arguments(parser: ArgumentParser) -> None:
    """The recipe, and changes to it."""
    parser.add_argument("overrides", nargs="+", metavar="recipe=NAME key.path=value")


def run(options: Namespace) -> None:
    """Print every step with its network, its cost and an estimate of its time; all that a run checks is checked."""
    name, overrides = recipe_arguments(options.overrides)
    recipe = load(name, overrides)
    from rich.table import Table

    from distill.console import console
    from distill.pipeline.plan import plan

    steps = plan(recipe)
    table = Table("step", "network", "", "epochs", "parameters", "MACs", "time", box=None, pad_edge=False)
    for column in table.columns[3:]:
        column.justify = "right"
    for step in steps:
        state = "kept" if step.kept else "new"
        epochs, macs = str(step.epochs or ""), f"{step.macs / 1e6:,.1f}M"
        table.add_row(step.name, step.network, state, epochs, f"{step.params:,}", macs, duration(step.seconds))
    console.print(table)
    console.print(f"together about {duration(total(step.seconds for step in steps))}, from one timed training step")


def total(seconds: Iterable[float | None]) -> float:
    """The sum of what is known."""
    return sum(value for value in seconds if value is not None)


def duration(seconds: float | None) -> str:
    """``1:02:03`` for hours, ``2:03`` for minutes, ``3 s`` below; empty where nothing is known."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
