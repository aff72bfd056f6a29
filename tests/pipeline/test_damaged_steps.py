"""Files that are not ours, or no longer what a step left, never stop a run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from distill.artifact import Artifact
from distill.artifact.step import Step
from distill.pipeline.step_store import Finished, Steps
from tests.nets import ConvNet

KEY = "k"


class Work:
    """Makes networks that differ from seed to seed, and counts how often it is asked to."""

    def __init__(self, seed: int = 0) -> None:
        self.done, self.seed = 0, seed

    def __call__(self, folder: Path) -> tuple[Artifact, list]:
        self.done += 1
        torch.manual_seed(self.seed)
        return Artifact(ConvNet().eval(), network={"name": "tests.nets:ConvNet"}), [{"epoch": 1, "val/accuracy": 0.5}]


def do(pool: Path, work: Work, *, run: str = "one", name: str = "teacher", key: str = KEY) -> Finished:
    def describe(artifact: Artifact, size: int, seconds: float) -> Step:
        return Step("teacher", 1, 2, size, {"val/accuracy": 0.5}, {}, 0.0)

    return Steps(pool / run, pool, allow=["tests.nets"]).do(name, key, work, describe)


def weights(done: Finished) -> dict[str, torch.Tensor]:
    return done.artifact.model.state_dict()


def same(a: Finished, b: Finished) -> bool:
    pairs = zip(weights(a).values(), weights(b).values(), strict=True)
    return a.step == b.step and a.curve == b.curve and all(torch.equal(x, y) for x, y in pairs)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name.startswith("distill")]


@pytest.mark.parametrize("content", ['{"accuracy": 1}', "[]", "null"])
def test_json_of_other_programs_is_passed_over_silently(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "zz").mkdir()
    (tmp_path / "zz" / "metrics.json").write_text(content)
    do(tmp_path, Work())
    assert lines(caplog) == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_damaged_records_of_other_runs_are_one_line_each(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "zz").mkdir()
    (tmp_path / "zz" / "metrics.json").write_bytes(content)
    do(tmp_path, Work())
    (line,) = lines(caplog)
    assert str(tmp_path / "zz" / "metrics.json") in line
    assert (tmp_path / "zz" / "metrics.json").read_bytes() == content


def test_links_that_lead_nowhere_and_folders_of_that_name_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a" / "metrics.json").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "metrics.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "c").symlink_to(tmp_path)
    assert not do(tmp_path, Work()).reused


def swap_network(step: Path) -> None:
    """Another network's valid file in this one's place."""
    do(step.parent.parent, Work(seed=1), run="other", key="other")
    shutil.copyfile(step.parent.parent / "other" / "teacher" / "network.safetensors", step / "network.safetensors")


def cut_network(step: Path) -> None:
    file = step / "network.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def flip_network(step: Path) -> None:
    content = bytearray((step / "network.safetensors").read_bytes())
    content[-5] ^= 1
    (step / "network.safetensors").write_bytes(content)


def remove_network(step: Path) -> None:
    (step / "network.safetensors").unlink()


def empty_record(step: Path) -> None:
    (step / "metrics.json").write_text("")


def better_record(step: Path) -> None:
    text = (step / "metrics.json").read_text()
    (step / "metrics.json").write_text(text.replace("0.5", "0.9"))


def directory_for_network(step: Path) -> None:
    remove_network(step)
    (step / "network.safetensors").mkdir()


DAMAGES = [
    swap_network,
    cut_network,
    flip_network,
    remove_network,
    empty_record,
    better_record,
    directory_for_network,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_is_set_aside_and_done_again(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = Work()
    whole = do(tmp_path, work)
    damage(tmp_path / "one" / "teacher")
    again = do(tmp_path, work)
    assert work.done == 2
    assert same(again, whole)
    (line,) = lines(caplog)
    assert str(tmp_path / "one" / "teacher") in line
    assert line.endswith("the step is set aside as 'teacher.damaged' and done again")
    assert do(tmp_path, work).reused
    assert (tmp_path / "one" / "teacher.damaged").is_dir()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_of_another_run_is_not_taken_over(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = do(tmp_path, Work())
    damage(tmp_path / "one" / "teacher")
    before = sorted(path.name for path in (tmp_path / "one").rglob("*"))
    work = Work()
    assert same(do(tmp_path, work, run="two"), whole)
    assert work.done == 1
    assert len(lines(caplog)) == 1
    assert sorted(path.name for path in (tmp_path / "one").rglob("*")) == before


def test_what_else_lies_in_a_step_stays_there_and_is_not_copied(tmp_path: Path) -> None:
    do(tmp_path, Work())
    (tmp_path / "one" / "teacher" / "notes.txt").write_text("mine")
    assert do(tmp_path, Work()).reused
    assert do(tmp_path, Work(), run="two").reused
    assert (tmp_path / "one" / "teacher" / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "two" / "teacher" / "notes.txt").exists()


def test_a_kill_between_the_record_and_its_final_name_loses_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[str]] = []

    class Trains(Work):
        def __call__(self, folder: Path) -> tuple[Artifact, list]:
            found.append(sorted(path.name for path in folder.glob("*.ckpt")))
            (folder / "last.ckpt").touch()
            return super().__call__(folder)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Steps, "_settle", killed)
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path, Trains())
    monkeypatch.undo()
    do(tmp_path, Trains())
    assert found == [[], ["last.ckpt"]]
    names = sorted(path.name for path in (tmp_path / "one" / "teacher").iterdir())
    assert names == ["metrics.json", "network.safetensors"]


def test_the_record_says_what_its_files_are(tmp_path: Path) -> None:
    do(tmp_path, Work())
    step = tmp_path / "one" / "teacher"
    (file,) = json.loads((step / "metrics.json").read_text())["files"].values()
    assert file["bytes"] == (step / "network.safetensors").stat().st_size
