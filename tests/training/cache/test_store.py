"""A cached teacher returns what the live one computes, for the images that it was called with and nothing else."""

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from distill.batch import Batch
from distill.data.digits import Digits
from distill.errors import DistillError
from distill.recipe.loading import load
from distill.training.cache import cached
from distill.training.teacher import Teacher
from tests.training.cache.behind import TAPS, asked, behind, epochs, filled, network


class TestOutputs:
    @pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("float16", 1e-3)])
    def test_they_are_the_teachers(self, dtype: str, tolerance: float, tmp_path: Path) -> None:
        teacher, data = behind(tmp_path, cache=f"views: 2, dtype: {dtype}")
        for batch in [*epochs(data, 0, 4)]:
            outputs, live = teacher(batch), teacher.teacher(batch)
            assert outputs.keys() == live.keys() == set(TAPS)
            for path in TAPS:
                assert outputs[path].dtype == live[path].dtype
                torch.testing.assert_close(outputs[path], live[path], rtol=tolerance, atol=tolerance)

    def test_each_image_is_asked_about_once(self, tmp_path: Path) -> None:
        teacher, data = behind(tmp_path)
        assert asked(teacher, iter(data.every_view())) == 8
        assert asked(teacher, epochs(data, 0, 5)) == 0

    def test_another_process_finds_them(self, tmp_path: Path) -> None:
        filled(tmp_path)
        teacher, data = behind(tmp_path)
        assert asked(teacher, epochs(data, 0, 5)) == 0

    def test_it_does_not_matter_whether_they_were_there(self, tmp_path: Path) -> None:
        teacher, data = behind(tmp_path, cache="views: 1")
        batch = next(epochs(data, 0, 1))
        first, again = teacher(batch), teacher(batch)
        assert all(torch.equal(first[path], again[path]) for path in TAPS)

    def test_they_belong_to_their_own_sample_and_view(self, tmp_path: Path) -> None:
        teacher, data = behind(tmp_path)
        one, other = (next(epochs(data, epoch, epoch + 1)) for epoch in (0, 1))
        teacher(one), teacher(other)
        turned = Batch(one.inputs.flip(0), one.labels.flip(0), one.sample.flip(0), one.view)
        assert torch.equal(teacher(turned)["stage1"], teacher(one)["stage1"].flip(0))
        assert not torch.equal(teacher(one)["stage1"], teacher(other)["stage1"])

    def test_other_taps_share_what_is_there(self, tmp_path: Path) -> None:
        filled(tmp_path)
        before = (tmp_path / "at-stage1.rows").read_bytes()
        fewer, data = behind(tmp_path, taps=["stage3"])
        assert asked(fewer, epochs(data, 0, 2)) == 0
        filled(tmp_path, taps=["stage1", "stage2"])
        assert (tmp_path / "at-stage1.rows").read_bytes() == before

    def test_runs_without_a_folder_of_their_own_share_one(self, tmp_path: Path) -> None:
        recipe = load("smoke", ["cache={}", f"output={tmp_path}"])
        other = load("smoke", ["cache={}", f"output={tmp_path}", "optimizer.lr=0.01", "data.batch_size=32"])
        data = Digits(0, limit=400)
        folders = {cached(Teacher(network(), [""]), each, data, {}).store.folder for each in (recipe, other)}
        folders_of_others = cached(Teacher(network(1), [""]), recipe, data, {}).store.folder
        assert len(folders) == 1
        assert folders_of_others not in folders


class TestRoom:
    def test_a_disk_that_is_too_small_is_named_before_anything_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
        with pytest.raises(DistillError, match=rf"kB in {tmp_path}, where 1.0 kB are free: .*cache.dtype=float16"):
            filled(tmp_path)
        assert not list(tmp_path.glob("*.rows"))

    def test_room_that_is_taken_meanwhile(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(DistillError, match="make room, or choose fewer cache.views"):
            filled(tmp_path)
        monkeypatch.undo()
        assert not list(tmp_path.glob("*.rows"))
        filled(tmp_path)

    def test_the_size_is_said_and_taken_at_once(self, tmp_path: Path, capsys: Any) -> None:
        teacher, data = behind(tmp_path, taps=["stage1", ""])
        teacher(next(epochs(data, 0, 1)))
        floats = 2 * 54 * (4 * 4 * 4 + 10)
        size = sum(file.stat().st_size for file in tmp_path.iterdir() if file.suffix in (".rows", ".checks"))
        assert size == 4 * floats + 2 * 4 * 2 * 54
        assert f"2 taps x 2 views x 54 samples = {size / 1000:.1f} kB in {tmp_path}" in capsys.readouterr().out
        assert sum(file.stat().st_blocks for file in tmp_path.glob("*.rows")) * 512 >= 4 * floats  # no holes
