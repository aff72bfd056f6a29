"""Training with a cache is training, in one process and in two."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from distill.__main__ import main
from distill.data.digits import Digits
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import train_student, train_teachers
from distill.recipe.loading import load
from distill.recipe.schema import Optimizer, Recipe, Schedule, Stage
from distill.tasks.classification import Classification
from distill.training.cache import _store, cached, set_views
from distill.training.distiller import Distiller
from distill.training.fit import fit
from students import student
from tests.training.cache.behind import Counting, network
from tests.training.test_distiller import HINTS, SETTINGS, same


def trained(folder: Path, recipe: Recipe | None) -> torch.nn.Module:
    data = Digits(0, limit=100, batch_size=32)
    set_views(data, recipe.cache.views if recipe else None)
    module = Distiller(
        network(),
        network(1),
        Classification(data.info),
        Stage(epochs=3, losses=HINTS),
        optimizer=Optimizer(),
        schedule=Schedule(),
        example=data.calibration(8)[0],
        injectable={"train_labels": data.train_labels(), "batch_size": data.batch_size},
        cached=(lambda teacher: cached(teacher, recipe, data, {})) if recipe else lambda teacher: teacher,
        channels_last=True,
    )
    return fit(module, data, folder, title="student", settings=SETTINGS).student


def test_with_a_view_for_every_epoch_and_32_bits_training_is_the_same(tmp_path: Path) -> None:
    recipe = load("smoke", [f"cache={{views: 3, dtype: float32, folder: {tmp_path / 'cache'}}}"])
    live = trained(tmp_path / "live", None)
    assert same(trained(tmp_path / "first", recipe), live)
    assert same(trained(tmp_path / "again", recipe), live)


NETWORK = "name: 'tests.nets:ConvNet', arguments: {channels: 1, num_classes: 10}"
TINY = [
    "recipe=smoke",
    f"teacher={{{NETWORK}, epochs: 1}}",
    f"student={{{NETWORK}}}",
    "stages={one: {epochs: 1, losses: {at: {taps: stages}}}, two: {epochs: 1, losses: {kd: {}}}}",
    "compress={}",
    "export={}",
    "baseline=false",
    "data.limit=100",
    "tracking.mode=disabled",
]


def train(recipe: Recipe, done: list[str]) -> None:
    """Teacher and student, without the report; writes down the step of every epoch."""
    with Experiment.open(recipe, lambda step, epoch, metrics: done.append(step)) as experiment:
        train_student(experiment, train_teachers(experiment))


class TestCommand:
    def test_it_fills_what_the_run_will_ask_for(
        self, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = [*TINY, "cache={views: 2}", f"output={tmp_path}"]
        assert main(["cache", *settings]) == 0
        assert "4 taps x 2 views x 90 samples = " in capsys.readouterr().out
        monkeypatch.setattr(_store.Store, "write", lambda *_: pytest.fail("the teacher was asked again"))
        train(load("smoke", settings[1:]), [])

    def test_the_cache_is_part_of_what_a_step_is_known_by(self, tmp_path: Path) -> None:
        done: list[str] = []
        for cache in ("null", "{views: 1}", f"{{views: 1, folder: {tmp_path / 'elsewhere'}}}", "{views: 2}"):
            train(load("smoke", [*TINY[1:], f"output={tmp_path / 'runs'}", f"cache={cache}"]), done)
            done.append("|")
        students = "student/one student/two |"
        assert " ".join(done) == f"teacher {students} {students} | {students}"

    def test_a_recipe_without_a_cache_is_told_so(self, tmp_path: Path, capsys: Any) -> None:
        assert main(["cache", *TINY, f"output={tmp_path}"]) == 2
        assert "add cache={views: 4}" in capsys.readouterr().err


RECIPE = """
task: {{name: classification}}
data: {{name: digits, limit: 60, batch_size: 16}}
teacher: {{name: resnet20, weights: {weights}}}
student: {{name: resnet20}}
stages: {{distill: {{epochs: 1, losses: {{kd: {{}}}}}}}}
cache: {{views: 3}}
trainer: {{accelerator: cpu, devices: 2, strategy: ddp}}
output: {output}
"""


def test_two_processes_fill_one_cache(tmp_path: Path) -> None:
    teacher = student.find("resnet20")(num_classes=10, channels=1).eval()
    save_file(teacher.state_dict(), tmp_path / "teacher.safetensors")
    recipe = tmp_path / "ddp.yaml"
    recipe.write_text(RECIPE.format(weights=tmp_path / "teacher.safetensors", output=tmp_path / "runs"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "distill", "cache", f"recipe={recipe}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    data = Digits(0, limit=60, batch_size=16)
    set_views(data, 3)
    here = cached(Counting(teacher, [""]), load(str(recipe)), data, {})
    for batch in data.every_view():
        torch.testing.assert_close(here(batch)[""], teacher(batch.inputs).detach(), rtol=1e-3, atol=1e-3)
    assert here.teacher.asked == 0
