"""The command line that every benchmark has: its parser, and errors as one line and an exit code, as of train.py."""

import argparse
import sys
from collections.abc import Callable
from functools import wraps

from distill.cli.guard import guarded


def command(main: Callable[[], None]) -> Callable[[], None]:
    """A benchmark's ``main`` that ends with one line on stderr and an exit code where it fails."""

    @wraps(main)
    def run() -> None:
        if code := guarded(main, debug="--debug" in sys.argv):
            raise SystemExit(code)

    return run


def described(description: str | None) -> argparse.ArgumentParser:
    """Of a benchmark that its module's docstring describes."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return made
