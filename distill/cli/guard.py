"""The boundary to the person at the terminal: an error becomes one clear line and an exit code."""

import logging
import os
import sys
import traceback
from collections.abc import Callable

from distill.console import quiet_libraries
from distill.errors import DistillError
from distill.files.advice import advice, place_of
from distill.parent import end_with_parent


def guarded(work: Callable[[], None], *, debug: bool) -> int:
    """Run ``work``; an error becomes one line on stderr and an exit code, nothing else.

    Returns:
        0 if all went well, 2 for a mistake of the user, 1 for a failure, 130 after Ctrl-C.
    """
    end_with_parent()
    try:
        _open_what_is_closed()
        quiet_libraries(debug=debug)
        _escape_what_cannot_be_shown()
        work()
        sys.stdout.flush()
        return 0
    except DistillError as error:
        return failed(str(error), error.exit_code, debug)
    except KeyboardInterrupt:
        return failed("stopped; the same command goes on from the last checkpoint", 130, debug)
    except BrokenPipeError:  # `... | head`: the reader has what it wants
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        return failed("out of memory: choose a smaller batch with data.batch_size=N, or a smaller network", 1, debug)
    except ModuleNotFoundError as error:
        return failed(f"this needs the library '{error.name}', which is not installed", 1, debug)
    except OSError as error:
        return failed(_of_the_system(error), 1, debug)
    except Exception as error:
        return failed(f"unexpected {type(error).__name__}: {error} (--debug shows where)", 1, debug)


def _open_what_is_closed() -> None:
    """Where a shell closed a stream (``>&-``), Python has None in its place: what is written goes nowhere."""
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _escape_what_cannot_be_shown() -> None:
    """On terminals that are not UTF-8, where one name would end the command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def failed(message: str, code: int, debug: bool = False) -> int:
    """Write one line to stderr, below the traceback of the error being handled if ``debug``; returns ``code``."""
    if debug:
        traceback.print_exc()
    logging.shutdown()
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return code


def _of_the_system(error: OSError) -> str:
    """What the operating system refused, on which file, and what helps."""
    place, remedy = place_of(error), advice(error)
    what = error.strerror or str(error) or type(error).__name__
    named = what if place is None else f"{what}: {place}"
    return f"{named}; {remedy}" if remedy else named
