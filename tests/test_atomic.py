from pathlib import Path

import pytest

from distill.atomic import replacing
from distill.errors import ExportError


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
    message = r"cannot write .*file\.txt: .*; choose another folder"
    with pytest.raises(ExportError, match=message), replacing(tmp_path / "folder" / "file.txt", ExportError):
        pass
