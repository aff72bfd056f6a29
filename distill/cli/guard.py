"""The boundary to the person at the terminal: an error becomes one clear line and an exit code."""

import errno
import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from distill.console import quiet_libraries
from distill.errors import DistillError
from distill.parent import end_with_parent

_ADVICE = {
    errno.ENOSPC: "make room, or choose another folder with output=FOLDER; finished steps are kept",
    errno.EDQUOT: "make room, or choose another folder with output=FOLDER; finished steps are kept",
    errno.EROFS: "choose a folder that can be written to with output=FOLDER",
    errno.EACCES: "check the permissions of the file and of its folder",
    errno.EPERM: "check the permissions of the file and of its folder",
    errno.EFBIG: "the file system, or 'ulimit -f', takes no file of this size",
    errno.EMFILE: "raise the limit of open files with 'ulimit -n'",
    errno.ELOOP: "its links lead in a circle; remove them",
    errno.EEXIST: "something else stands there; move it away",
    errno.ENOTDIR: "a file stands where a folder is expected; move it away",
    errno.EISDIR: "a folder stands where a file is expected; move it away",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def guarded(work: Callable[[], None], *, debug: bool) -> int:
    """Run ``work``; an error becomes one line on stderr and an exit code, nothing else.

    Returns:
        0 if all went well, 2 for a mistake of the user, 1 for a failure, 130 after Ctrl-C.
    """
    end_with_parent()
    try:
        quiet_libraries(debug=debug)
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


def failed(message: str, code: int, debug: bool = False) -> int:
    """Write one line to stderr, below the traceback of the error being handled if ``debug``; returns ``code``."""
    if debug:
        traceback.print_exc()
    logging.shutdown()
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return code


def _of_the_system(error: OSError) -> str:
    """What the operating system refused, on which file, and what helps."""
    place = error.filename2 or error.filename  # of a copy that failed, the second is where it should have gone
    what = error.strerror or str(error) or type(error).__name__
    advice = _ADVICE.get(error.errno or 0, "")
    # A folder that is made in a dangling link's place is refused as if something stood there.
    if place is not None and error.errno in (errno.ENOENT, errno.EEXIST) and _dangles(Path(os.fsdecode(place))):
        advice = f"it is a link to {str(Path(os.fsdecode(place)).readlink())!r}, which is not there"
    named = f"{what}: {os.fsdecode(place)}" if isinstance(place, str | bytes) else what
    return f"{named}; {advice}" if advice else named


def _dangles(path: Path) -> bool:
    return path.is_symlink() and not path.exists()
