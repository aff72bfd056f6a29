"""Parts of an output that the task computes are kept for that task: another one never reads them."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import distill
from distill.pipeline.experiment import Experiment
from distill.training.cache._identity import parts_key
from distill.training.teacher import Teacher
from students import student

TAPS = ["0", ":stage2"]


def weights(file: Path, seed: int) -> None:
    torch.manual_seed(seed)
    torch.save(student.find("mobilenet_v1")(num_classes=1000).state_dict(), file)


def kept(output: Path, *overrides: str, taps: list[str] = TAPS) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """What a run's cache gives, and what the task computes."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 3, 1))
    settings = ["data.samples=8", "cache={views: 1, dtype: float32}", "tracking.mode=disabled", f"output={output}"]
    with Experiment.open(distill.load_recipe("style/smoke", [*settings, *overrides])) as experiment:
        live = Teacher(network, taps, parts=experiment.task.parts)
        batch = next(iter(experiment.data.every_view()))
        return experiment.cached(live)(batch), live(batch)


@pytest.fixture(autouse=True)
def no_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.pipeline.experiment.DryRun", lambda recipe, *_: SimpleNamespace(recipe=recipe))


def check(output: Path, *overrides: str) -> Tensor:
    found, live = kept(output, *overrides)
    assert found.keys() == live.keys() == {*TAPS}
    assert all(torch.equal(found[path], live[path]) for path in TAPS)
    return found[":stage2"]


@pytest.mark.parametrize("folder", ["", "cache.folder={}/mine"])
def test_other_settings_of_the_task_read_none_of_the_first_ones_maps(folder: str, tmp_path: Path) -> None:
    own = [folder.format(tmp_path)] if folder else []
    first = check(tmp_path, *own)
    assert not torch.equal(check(tmp_path, *own, "task.perceptual.mean=[0.9, 0.1, 0.3]"), first)
    assert torch.equal(check(tmp_path, *own), first)


def test_other_weights_in_the_same_file_read_none_of_the_first_ones_maps(tmp_path: Path) -> None:
    task = f"task.perceptual.weights={tmp_path / 'seen.pt'}"
    weights(tmp_path / "seen.pt", 0)
    first = check(tmp_path, task)
    weights(tmp_path / "seen.pt", 1)
    assert not torch.equal(check(tmp_path, task), first)


def test_maps_of_the_network_serve_every_task(tmp_path: Path) -> None:
    for mean in (0.1, 0.2):
        kept(tmp_path, f"task.perceptual.mean=[{mean}, 0.1, 0.3]", "task.style_weight=3")
    rows = [file.name for file in (tmp_path / ".cache").glob("*/*.rows")]
    assert rows.count("at-0.rows") == 1
    assert sum(name.startswith("part-stage2-") for name in rows) == 2
    kept(tmp_path, "task.perceptual.mean=[0.3, 0.1, 0.3]", taps=["0"])
    assert len([*(tmp_path / ".cache").glob("*/*.rows")]) == len(rows)


def test_maps_do_not_depend_on_what_losses_weigh(tmp_path: Path) -> None:
    for weight in (3, 4):
        kept(tmp_path, f"task.style_weight={weight}", f"task.content_weight={weight}", f"task.smooth_weight={weight}")
    rows = [file.name for file in (tmp_path / ".cache").glob("*/*.rows")]
    assert sum(name.startswith("part-stage2-") for name in rows) == 1


def test_code_of_a_tasks_own_author_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "own_task_of_a_cache.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    names = []
    for factor in (2, 3):
        file.write_text(f"FACTOR = {factor}\n")
        names.append(parts_key({"name": "own_task_of_a_cache:Mine"}))
    assert names[0] != names[1]
