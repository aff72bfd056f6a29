"""What ends a command: one line that says what went wrong and what helps, and the right exit code."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.table import Table

from distill.cli.guard import guarded
from distill.console import console
from distill.errors import ArtifactError, TrainingError


def failing(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (TrainingError("diverged"), 1, "error: diverged\n"),
        (ArtifactError("cut\nshort"), 2, "error: cut short\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/tmp/x", None, "runs/x"),
            1,
            "error: No space left on device: runs/x; make room, or choose another folder with output=FOLDER; "
            "finished steps are kept\n",
        ),
        (KeyboardInterrupt(), 130, "error: stopped; the same command goes on from the last checkpoint\n"),
        (ZeroDivisionError("by 0"), 1, "error: unexpected ZeroDivisionError: by 0 (--debug shows where)\n"),
    ],
)
def test_what_ends_a_run(error: BaseException, code: int, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(failing(error), debug=False) == code
    assert capsys.readouterr().err == shown


def test_what_a_terminal_cannot_show_is_escaped() -> None:
    code = "from distill.cli.guard import guarded; guarded(lambda: print(chr(0x732b)), debug=False)"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "\\u732b\n"


LISTED = [sys.executable, "-m", "distill", "list", "data"]


def test_a_reader_that_has_what_it_wants_is_no_failure() -> None:
    done = subprocess.Popen(
        LISTED, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "COLUMNS": "9999"}
    )
    assert done.stdout
    done.stdout.close()
    assert done.wait() == 0


def test_a_terminal_of_no_width_hides_nothing() -> None:
    done = subprocess.run(LISTED, env={**os.environ, "COLUMNS": "0"}, capture_output=True, text=True, check=True)
    assert "fashion_mnist" in done.stdout


@pytest.mark.parametrize(("work", "code"), [("print('done')", 0), ("open('nowhere')", 1)])
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_failure(work: str, code: int, closed: str) -> None:
    program = f"import sys; from distill.cli.guard import guarded; sys.exit(guarded(lambda: {work}, debug=False))"
    command = ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "unexpected" not in done.stderr
    assert bool(done.stderr) == (code > 0 and "2" not in closed)


@pytest.mark.parametrize("folder", ["/mnt/[backup]/runs", "/mnt/x[/y]", "[bold]x[/bold]"])
def test_paths_with_brackets_are_printed_as_they_are(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("file")
    table.add_row(folder)
    console.print(folder)
    console.print(table)
    assert capsys.readouterr().out.count(folder) == 2


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    guarded(failing(TrainingError("diverged")), debug=True)
    assert "Traceback" in capsys.readouterr().err


def opening(path: Path) -> Callable[[], None]:
    return lambda: path.read_bytes() and None


def test_a_dangling_link_is_named_with_its_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").symlink_to("gone")
    assert guarded(opening(tmp_path / "data"), debug=False) == 1
    assert "data; it is a link to 'gone', which is not there" in capsys.readouterr().err


def test_a_folder_that_is_a_dangling_link_is_named_with_its_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").symlink_to("gone")
    assert guarded(lambda: (tmp_path / "runs").mkdir(parents=True, exist_ok=True), debug=False) == 1
    assert "runs; it is a link to 'gone', which is not there" in capsys.readouterr().err


def test_links_in_a_circle_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert guarded(opening(tmp_path / "a"), debug=False) == 1
    assert "its links lead in a circle" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO, errno.ENOENT])
def test_room_is_asked_for_only_where_it_helps(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    guarded(failing(OSError(number, "it failed", "file")), debug=False)
    assert capsys.readouterr().err == "error: it failed: file\n"


def test_too_little_memory_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(failing(MemoryError()), debug=False) == 1
    assert "out of memory: choose a smaller batch" in capsys.readouterr().err
