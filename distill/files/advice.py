"""What helps when the operating system refuses a file: one remedy for each of its error numbers."""

import errno
import os
from pathlib import Path

_ROOM = "make room, or choose another folder with output=FOLDER; finished steps are kept"
_PERMISSIONS = "check the permissions of the file and of its folder"
_ADVICE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: "choose a folder that can be written to with output=FOLDER",
    errno.EACCES: _PERMISSIONS,
    errno.EPERM: _PERMISSIONS,
    errno.EFBIG: "the file system, or 'ulimit -f', takes no file of this size",
    errno.EMFILE: "raise the limit of open files with 'ulimit -n'",
    errno.ELOOP: "its links lead in a circle; remove them",
    errno.EEXIST: "something else stands there; move it away",
    errno.ENOTDIR: "a file stands where a folder is expected; move it away",
    errno.EISDIR: "a folder stands where a file is expected; move it away",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def advice(error: OSError) -> str:
    """The remedy, or an empty text where none is known."""
    place = place_of(error)
    # A folder that is made in a dangling link's place is refused as if something stood there.
    if place is not None and error.errno in (errno.ENOENT, errno.EEXIST) and _dangles(Path(place)):
        return f"it is a link to {str(Path(place).readlink())!r}, which is not there"
    return _ADVICE.get(error.errno or 0, "")


def place_of(error: OSError) -> str | None:
    """The file that was refused; of a copy that failed, where it should have gone."""
    place = error.filename2 or error.filename
    return os.fsdecode(place) if isinstance(place, str | bytes | os.PathLike) else None


def _dangles(path: Path) -> bool:
    return path.is_symlink() and not path.exists()
