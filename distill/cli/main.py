"""python -m distill COMMAND: everything that is done with a recipe or an artifact beside running it."""

import argparse
import ast
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from distill import __version__
from distill.cli.guard import failed, guarded
from distill.registry import did_you_mean


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and do what it says; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    known = commands()
    asked = next((word for word in arguments if not word.startswith("-")), None)
    if asked is not None and asked not in known:
        return failed(f"unknown command {did_you_mean(asked, known)}", 2)
    understood = parser(known, asked)
    # argparse looks for no positional arguments after an option: of `sweep FILE --jobs 2 seed=1` it leaves the last.
    options, rest = understood.parse_known_args(arguments)
    if rest and (not hasattr(options, "overrides") or any(word.startswith("-") for word in rest)):
        understood.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides += rest
    return guarded(lambda: options.run(options), debug=options.debug)


def commands() -> Mapping[str, str]:
    """Every command and its summary: one file each in ``commands/``, none of which is imported."""
    files = sorted((Path(__file__).parent / "commands").glob("[!_]*.py"))
    return {file.stem.replace("_", "-"): _summary(file) for file in files}


def _summary(file: Path) -> str:
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def parser(known: Mapping[str, str], asked: str | None) -> argparse.ArgumentParser:
    """The parser of all commands; only the one that is asked for is imported, for its arguments."""
    parser = argparse.ArgumentParser(prog="python -m distill", description=__doc__)
    parser.add_argument("--version", action="version", version=f"distill {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    added = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, summary in known.items():
        command = added.add_parser(name, parents=[common], help=summary, description=summary)
        if name == asked:
            module = import_module(f"distill.cli.commands.{name.replace('-', '_')}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser
