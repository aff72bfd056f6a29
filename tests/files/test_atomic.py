import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from distill.errors import ExportError
from distill.files.atomic import replacing


def test_a_file_appears_whole_in_a_folder_that_is_made(tmp_path: Path):
    path = tmp_path / "new" / "file.txt"
    with replacing(path) as part:
        part.write_text("whole")
        assert not path.exists()
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]
    assert path.read_text() == "whole"


def test_a_failure_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "file.txt"
    path.write_text("before")

    def fail() -> None:
        with replacing(path) as part:
            part.write_text("half")
            raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        fail()
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "before"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "folder").write_text("a file, not a folder")
    message = r"cannot write .*file\.txt: .*; (a file|something else) stands .*; move it away"
    with pytest.raises(ExportError, match=message), replacing(tmp_path / "folder" / "file.txt", ExportError):
        pass


def test_the_one_before_is_kept_where_it_is_asked_for(tmp_path: Path):
    path, previous = tmp_path / "file.txt", tmp_path / "previous.txt"
    for text in ("first", "second", "third"):
        with replacing(path, previous=previous) as part:
            part.write_text(text)
    assert (path.read_text(), previous.read_text()) == ("third", "second")
    with pytest.raises(ValueError, match="stopped"), replacing(path, previous=previous) as part:
        raise ValueError("stopped")
    assert (path.read_text(), previous.read_text()) == ("third", "second")


def test_what_a_killed_process_left_is_removed_and_what_a_running_one_writes_is_not(tmp_path: Path):
    path = tmp_path / "file.txt"
    killed = (
        "import os, pathlib\nfrom distill.files.atomic import replacing\n"
        f"with replacing(pathlib.Path({str(path)!r})) as part:\n    part.write_text('half')\n    os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", killed], cwd=Path(__file__).parents[2])
    (orphan,) = tmp_path.iterdir()
    running = orphan.with_name(f"{orphan.name.rpartition('-')[0]}-{os.getppid()}")
    running.write_text("in the making")
    with replacing(path) as part:
        part.write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, running])


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EPERM])
def test_a_file_is_whole_where_folders_cannot_be_waited_for(tmp_path: Path, monkeypatch, number: int):
    """As on shared folders of virtual machines and some network file systems."""
    waited, folders = os.fsync, []

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            folders.append(descriptor)
            raise OSError(number, os.strerror(number))
        waited(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    with replacing(tmp_path / "file.txt") as part:
        part.write_text("whole")
    assert folders
    assert (tmp_path / "file.txt").read_text() == "whole"


def test_a_disk_that_fails_while_names_are_written_is_said(tmp_path: Path, monkeypatch):
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ExportError, match="Input/output error"), replacing(tmp_path / "file.txt", ExportError) as part:
        part.write_text("whole")
