"""A sweep's damaged database is set aside or named, and its trials are repeated."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from distill.errors import UserError
from distill.sweep import sweep
from distill.sweep.database import is_damage
from tests.sweep.objectives import bowl, chosen, go, write


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def text(file: Path) -> None:
    file.write_text("no database at all\n" * 500)


def zeros(file: Path) -> None:
    """A page in the middle."""
    content = bytearray(file.read_bytes())
    content[8192:12288] = bytes(4096)
    file.write_bytes(content)


def unknown_state(file: Path) -> None:
    """A whole database with a value that Optuna does not know."""
    with sqlite3.connect(file) as database:
        database.execute("UPDATE trials SET state = 'COMPLEAT'")


DAMAGES = [cut, text, zeros, unknown_state]


@pytest.mark.parametrize("damage", [*DAMAGES, empty])
def test_a_damaged_database_beside_the_results_is_set_aside(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rates = chosen(go(tmp_path, 3))
    file = tmp_path / "runs/sweeps/file/study.db"
    damage(file)
    assert chosen(go(tmp_path, 3)) == rates
    lines = [record.message for record in caplog.records if record.name.startswith("distill.sweep")]
    if damage is empty:  # for SQLite an empty file is a new database
        assert lines == []
    else:
        (line,) = lines
        assert line.startswith(f"{file} is damaged (")
        assert "set aside as 'study.db.damaged'" in line
    assert chosen(go(tmp_path, 4))[:3] == rates


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_database_that_the_user_named_is_an_error_and_stays(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    file = tmp_path / "mine.db"
    arguments = {"storage": f"sqlite:///{file}", "overrides": [f"output={tmp_path / 'runs'}"], "objective": bowl}
    sweep(write(tmp_path), trials=2, **arguments)
    damage(file)
    content = file.read_bytes()
    with pytest.raises(UserError, match=r"cannot use storage 'sqlite:.*mine.db': .*; name another one with --storage"):
        sweep(write(tmp_path), trials=2, **arguments)
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    ("error", "damage"),
    [
        (sqlite3.DatabaseError("file is not a database"), True),
        (LookupError("'COMPLEAT' is not among the defined enum values"), True),
        (sqlite3.OperationalError("database is locked"), False),
        (sqlite3.OperationalError("database or disk is full"), False),
        (OSError(28, "No space left on device"), False),
    ],
)
def test_a_locked_or_full_disk_is_no_damage(error: Exception, damage: bool) -> None:
    assert is_damage(error) is damage
