"""Run a sweep file in W&B's format on this machine, with Optuna."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from distill.recipe.overrides import check_unique


def add_arguments(parser: ArgumentParser) -> None:
    """The sweep file, how much of it, and changes to its recipe."""
    parser.add_argument("file", help="a sweep file in W&B's format")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="set in every trial")
    parser.add_argument("--trials", type=int, help="how many in all; default: the file's run_cap, or the whole grid")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time; default: 1")
    parser.add_argument(
        "--storage", metavar="URL", help="any SQL database that Optuna can use; several machines may share it"
    )


def run(options: Namespace) -> None:
    """Run its trials; the same command goes on with a sweep that was stopped."""
    check_unique(options.overrides)
    from distill.sweep import sweep

    sweep(
        Path(options.file),
        trials=options.trials,
        jobs=options.jobs,
        storage=options.storage,
        overrides=options.overrides,
    )
