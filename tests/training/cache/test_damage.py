"""Damaged outputs are noticed and computed again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.cache.behind import TAPS, asked, behind, epochs, filled


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def extend(file: Path) -> None:
    file.write_bytes(file.read_bytes() + bytes(100))


def empty(file: Path) -> None:
    file.write_bytes(b"")


def remove(file: Path) -> None:
    file.unlink()


def swap_digits(file: Path) -> None:
    """Still JSON, and still of the same length, but of another shape or another teacher."""
    content = file.read_bytes()
    file.write_bytes(content.translate(bytes.maketrans(b"0123456789", b"1032547698")))


class TestDamage:
    @pytest.mark.parametrize("file", ["at-stage1.rows", "output.rows", "at-stage3.checks"])
    def test_a_changed_byte_is_noticed_and_mended(self, file: str, tmp_path: Path, caplog: Any) -> None:
        filled(tmp_path)
        content = bytearray((tmp_path / file).read_bytes())
        content[len(content) // 3] ^= 1
        (tmp_path / file).write_bytes(content)
        teacher, data = behind(tmp_path)
        answers = [(teacher(batch), teacher.teacher(batch)) for batch in data.every_view()]
        assert all(torch.equal(told[path], live[path]) for told, live in answers for path in TAPS)
        assert caplog.text.count("is damaged, or its images changed") == 1
        assert teacher.teacher.asked == len(answers) + 1
        again, data = behind(tmp_path)
        assert asked(again, iter(data.every_view())) == 0

    def test_rows_that_a_killed_run_left_half_written_are_absent(self, tmp_path: Path, caplog: Any) -> None:
        filled(tmp_path)
        checks = np.memmap(tmp_path / "output.checks", np.uint32, "r+")
        checks[54:] = 0
        teacher, data = behind(tmp_path)
        assert asked(teacher, epochs(data, 0, 1)) == 0
        assert asked(teacher, epochs(data, 1, 2)) == 3
        assert caplog.text == ""

    def test_files_without_their_header_were_never_finished(self, tmp_path: Path) -> None:
        filled(tmp_path)
        (tmp_path / "output.json").unlink()
        teacher, data = behind(tmp_path)
        assert asked(teacher, iter(data.every_view())) == 8

    def test_an_image_that_changed_is_asked_about_anew(self, tmp_path: Path) -> None:
        filled(tmp_path)
        teacher, data = behind(tmp_path)
        batch = next(epochs(data, 0, 1))
        batch.inputs[5] += 1
        assert torch.equal(teacher(batch)[""], teacher.teacher(batch)[""])

    @pytest.mark.parametrize("damage", [cut, extend, empty, swap_digits, remove])
    @pytest.mark.parametrize("file", ["cache.json", "at-stage1.json", "at-stage1.rows", "output.checks"])
    def test_damaged_files_are_computed_again_and_named(
        self, damage: Callable[[Path], None], file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        filled(tmp_path)
        damage(tmp_path / file)
        teacher, data = behind(tmp_path)
        for batch in data.every_view():
            live = teacher.teacher(batch)
            assert all(torch.equal(output, live[path]) for path, output in teacher(batch).items())
        lines = [record.message for record in caplog.records if record.name.startswith("distill")]
        if damage is remove and file.endswith(".json"):
            assert lines == []  # as if it had never been finished
        else:
            assert len(lines) == 1
            assert str(tmp_path) in lines[0]
        again, data = behind(tmp_path)
        assert asked(again, iter(data.every_view())) == 0
