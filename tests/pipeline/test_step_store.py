"""A step is done once, shared between runs, and never half-done under its final name."""

from pathlib import Path

import pytest
from torch import nn

from distill.artifact import Artifact
from distill.artifact.step import Step
from distill.pipeline import step_store
from distill.pipeline.step_store import Steps
from distill.recipe.plain import key
from tests.nets import ConvNet

ENTRY = {"name": "tests.nets:ConvNet"}


class SweepWorker:
    """Counts how often it is done; fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.done, self.failures, self.found = 0, failures, []

    def __call__(self, folder: Path) -> tuple[Artifact, list]:
        self.found.append(sorted(p.name for p in folder.glob("*.ckpt")))
        self.done += 1
        (folder / "last.ckpt").write_text("state")
        if self.done <= self.failures:
            raise KeyboardInterrupt
        return Artifact(ConvNet().eval(), network=ENTRY), [{"epoch": 1}]


def describe(artifact: Artifact, size: int, seconds: float) -> Step:
    return Step("student", 1, 2, size, {"val/accuracy": 0.5}, {}, seconds)


def steps(pool: Path, run: str = "one") -> Steps:
    return Steps(pool / run, pool, allow=["tests.nets"])


def test_a_finished_step_is_not_done_again(tmp_path: Path) -> None:
    work = SweepWorker()
    first = steps(tmp_path).do("student/hint", "k", work, describe)
    again = steps(tmp_path).do("student/hint", "k", work, describe)
    assert work.done == 1
    assert (first.reused, again.reused) == (False, True)
    assert again.step == first.step
    assert again.curve == [{"epoch": 1}]
    assert first.step.bytes == (tmp_path / "one/student/hint/network.safetensors").stat().st_size


def test_another_run_takes_it_over(tmp_path: Path) -> None:
    work = SweepWorker()
    steps(tmp_path).do("teacher", "k", work, describe)
    steps(tmp_path, "two").do("teacher", "k", work, describe)
    assert work.done == 1
    assert (tmp_path / "two/teacher/metrics.json").is_file()


def test_processes_of_a_launcher_find_the_same_step_before_they_know_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = SweepWorker()
    first = steps(tmp_path).do("teacher", "k", work, describe)
    monkeypatch.setattr(step_store, "is_first", lambda: False)
    found = steps(tmp_path, "two").do("teacher", "k", work, describe)
    assert work.done == 1
    assert (found.reused, found.step) == (True, first.step)
    assert not (tmp_path / "two/teacher").exists()


def test_a_changed_key_does_it_anew(tmp_path: Path) -> None:
    work = SweepWorker()
    steps(tmp_path).do("teacher", "k", work, describe)
    steps(tmp_path).do("teacher", "other", work, describe)
    assert work.done == 2


def test_a_killed_step_finds_its_checkpoint_and_leaves_none(tmp_path: Path) -> None:
    work = SweepWorker(failures=1)
    with pytest.raises(KeyboardInterrupt):
        steps(tmp_path).do("teacher", "k", work, describe)
    assert not (tmp_path / "one/teacher").exists()
    steps(tmp_path).do("teacher", "k", work, describe)
    assert work.found == [[], ["last.ckpt"]]
    assert sorted(p.name for p in (tmp_path / "one/teacher").iterdir()) == ["metrics.json", "network.safetensors"]


def test_a_checkpoint_of_another_key_is_not_used(tmp_path: Path) -> None:
    work = SweepWorker(failures=1)
    with pytest.raises(KeyboardInterrupt):
        steps(tmp_path).do("teacher", "k", work, describe)
    steps(tmp_path).do("teacher", "other", work, describe)
    assert work.found == [[], []]


def test_keys_see_every_value_but_not_the_order_of_a_mapping() -> None:
    assert key({"a": 1, "b": 2}) == key({"b": 2, "a": 1})
    assert len({key(1), key("1"), key([1]), key(1, None), key({"a": 1})}) == 5


def test_what_is_read_back_is_what_was_made(tmp_path: Path) -> None:
    done = steps(tmp_path).do("teacher", "k", SweepWorker(), describe)
    assert isinstance(done.artifact.model, nn.Module)
    assert not done.artifact.model.training
