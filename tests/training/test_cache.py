"""A cached teacher answers as the live one does, to the images that it was asked about, and nothing else."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from distill.__main__ import main
from distill.batch import Batch
from distill.data import DataInfo
from distill.data.digits import Digits
from distill.errors import DistillError, RecipeError
from distill.models.input_transform import InputTransform
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import train_student, train_teachers
from distill.recipe.loading import load
from distill.recipe.schema import Optimizer, Recipe, Schedule, Stage
from distill.tasks.classification import Classification
from distill.training.cache import CachedTeacher, _store, cached, set_views
from distill.training.cache._coding import Coding, coding, coding_for
from distill.training.cache._identity import fingerprint
from distill.training.distiller import Distiller
from distill.training.ensemble import Ensemble
from distill.training.fit import fit
from distill.training.teacher import Teacher
from students import student
from tests.nets import TEN_CLASSES, ConvNet
from tests.training.test_distiller import HINTS, SETTINGS, same

TAPS = ["stage1", "stage3", ""]


class Counting(Teacher):
    """A teacher that counts how often it is asked."""

    asked = 0

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        self.asked += 1
        return super().forward(batch)


def network(seed: int = 0) -> ConvNet:
    torch.manual_seed(seed)
    return ConvNet()


def behind(
    folder: Path, *overrides: str, cache: str = "views: 2, dtype: float32", taps: list[str] = TAPS, weights: int = 0
) -> tuple[CachedTeacher, Digits]:
    """A teacher behind a cache in this folder, and the data that it looks at."""
    recipe = load("smoke", [f"cache={{{cache}, folder: {folder}}}", "data.limit=60", "data.batch_size=16", *overrides])
    settings = {key: value for key, value in vars(recipe.data).items() if key != "name"}
    data = Digits(recipe.seed, **settings)
    set_views(data, recipe.cache.views)
    return cached(Counting(network(weights), taps), recipe, data), data


def epochs(data: Digits, first: int, last: int) -> Iterator[Batch]:
    loader = data.train_dataloader()
    for epoch in range(first, last):
        loader.sampler.set_epoch(epoch)
        yield from loader


def filled(folder: Path, **settings: Any) -> None:
    teacher, data = behind(folder, **settings)
    for batch in data.every_view():
        teacher(batch)


def asked(teacher: CachedTeacher, batches: Iterator[Batch]) -> int:
    before = teacher.teacher.asked
    for batch in batches:
        teacher(batch)
    return teacher.teacher.asked - before


class Foreign:
    """A data module without views."""

    info, batch_size, samples = DataInfo(1, (8, 8), (0.0,), (1.0,), ("a", "b")), 4, 8

    def train_dataloader(self) -> None: ...

    val_dataloader = test_dataloader = train_labels = calibration = fingerprint = train_dataloader


class TestViews:
    def test_they_repeat_after_as_many_epochs_and_not_before(self) -> None:
        data = Digits(0, limit=60, batch_size=16)
        data.views = 3
        seen: list[dict[int, Tensor]] = []
        for epoch in range(6):
            batches = list(epochs(data, epoch, epoch + 1))
            assert {batch.view for batch in batches} == {epoch % 3}
            seen.append({s: x for b in batches for s, x in zip(b.sample.tolist(), b.inputs, strict=True)})
        for epoch in range(3):
            both = seen[epoch].keys() & seen[epoch + 3].keys()
            assert all(torch.equal(seen[epoch][sample], seen[epoch + 3][sample]) for sample in both)
        both = seen[0].keys() & seen[1].keys()
        assert sum(torch.equal(seen[0][sample], seen[1][sample]) for sample in both) < len(both) / 2

    def test_batches_are_still_shuffled_anew(self) -> None:
        data = Digits(0, limit=60, batch_size=16)
        data.views = 1
        first, second = ([b.sample.tolist() for b in epochs(data, epoch, epoch + 1)] for epoch in (0, 1))
        assert first != second

    def test_every_view_of_every_sample_comes_once(self) -> None:
        data = Digits(0, limit=60, batch_size=16)
        data.views = 2
        listed = [(batch.view, sample) for batch in data.every_view() for sample in batch.sample.tolist()]
        assert sorted(listed) == [(view, sample) for view in (0, 1) for sample in range(54)]
        shown = {(b.view, s): x for b in data.every_view() for s, x in zip(b.sample.tolist(), b.inputs, strict=True)}
        for batch in epochs(data, 0, 2):
            assert all(torch.equal(shown[batch.view, s], x) for s, x in zip(batch.sample.tolist(), batch.inputs))

    def test_evaluation_shows_none(self) -> None:
        data = Digits(0, limit=60)
        assert {batch.view for batch in [*data.val_dataloader(), *data.calibration(8)]} == {None}

    def test_a_data_set_that_promises_none_is_refused(self) -> None:
        with pytest.raises(RecipeError, match="Foreign does not promise that its augmentations repeat"):
            set_views(Foreign(), 2)
        set_views(Foreign(), None)

    def test_a_batch_that_does_not_say_its_view_is_refused(self, tmp_path: Path) -> None:
        teacher, data = behind(tmp_path)
        for view in (None, 2):
            with pytest.raises(RecipeError, match=f"shows view {view}, where there are 2"):
                teacher(next(epochs(data, 0, 1))._replace(view=view))


class TestAnswers:
    @pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("float16", 1e-3)])
    def test_they_are_the_teachers(self, dtype: str, tolerance: float, tmp_path: Path) -> None:
        teacher, data = behind(tmp_path, cache=f"views: 2, dtype: {dtype}")
        for batch in [*epochs(data, 0, 4)]:
            answers, live = teacher(batch), teacher.teacher(batch)
            assert answers.keys() == live.keys() == set(TAPS)
            for path in TAPS:
                assert answers[path].dtype == live[path].dtype
                torch.testing.assert_close(answers[path], live[path], rtol=tolerance, atol=tolerance)

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
        folders = {cached(Teacher(network(), [""]), each, data).store.folder for each in (recipe, other)}
        folders_of_others = cached(Teacher(network(1), [""]), recipe, data).store.folder
        assert len(folders) == 1
        assert folders_of_others not in folders


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "what"),
        [
            ({"weights": 1}, "teacher is"),
            ({"cache": "views: 3, dtype: float32"}, "cache.views is 3, there 2"),
            ({"cache": "views: 2"}, "cache.dtype is float16, there float32"),
            ("data.limit=50", "data is"),
            ("data.val=0.2", "data is"),
            ("data.crop=0", "data.crop is 0, there 1"),
            ("seed=1", "seed is 1, there 0"),
            ("trainer={precision: bf16-mixed}", "trainer.precision is bf16-mixed, there 32-true"),
        ],
    )
    def test_the_cache_of_something_else(self, changes: Any, what: str, tmp_path: Path) -> None:
        filled(tmp_path)
        overrides, settings = ([changes], {}) if isinstance(changes, str) else ([], changes)
        with pytest.raises(RecipeError, match=f"the cache in {tmp_path} belongs to something else .*{what}"):
            behind(tmp_path, *overrides, **settings)

    def test_a_folder_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(RecipeError, match="is no cache, but holds 'thesis.tex'"):
            behind(tmp_path)

    def test_a_damaged_header(self, tmp_path: Path) -> None:
        filled(tmp_path)
        (tmp_path / "cache.json").write_text("{")
        with pytest.raises(RecipeError, match="cache.json is damaged: remove the folder"):
            behind(tmp_path)

    @pytest.mark.parametrize(
        ("overrides", "complaint"),
        [
            (["cache={views: 0}"], "at cache.views: views is 0, but must be at least 1"),
            (["cache={top_k: 0}"], "at cache.top_k: top_k is 0, but must be at least 1"),
            (["cache={dtype: float8}"], "at cache.dtype: 'float8' is not one of float16, float32"),
            (["cache={}", "stages.distill.teacher_bn=train"], "at stages.distill: .*depends on the batch around it"),
            (["cache={}", "compress.svd.finetune.teacher_bn=train"], "at compress.svd.finetune: "),
            (["cache={}", "teacher=null", "stages={only: {epochs: 1}}"], "cache: there is no teacher"),
        ],
    )
    def test_recipes_that_cannot_be(self, overrides: list[str], complaint: str) -> None:
        with pytest.raises(RecipeError, match=complaint):
            load("smoke", overrides)

    def test_more_top_classes_than_there_are(self, tmp_path: Path) -> None:
        recipe = load("smoke", ["cache={top_k: 10}", f"output={tmp_path}", "tracking.mode=disabled"])
        with pytest.raises(RecipeError, match="cache.top_k=10, but there are only 10 classes"), Experiment.open(recipe):
            pass

    def test_weights_structure_and_own_images_make_a_teacher(self) -> None:
        assert fingerprint(network()) == fingerprint(network())
        others = [network(1), network(), network(), network(), network()]
        others[1].stage1[1].running_mean += 1
        others[2].stage1[3].kernel_size = 3
        for other, std in zip(others[3:], (0.5, 0.6), strict=True):
            other.register_forward_pre_hook(InputTransform([0.0], [1.0], [0.5], [std]))
        assert len({fingerprint(each) for each in (network(), *others)}) == 6

    def test_an_ensemble_is_its_members_and_their_weights(self) -> None:
        both = {"a": network(0), "b": network(1)}
        weights = [{"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 2.0}, {"a": 2.0, "b": 2.0}]
        assert len({fingerprint(Ensemble(both, each)) for each in weights}) == 2


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


def back(answers: Tensor, kept: str = "float32", top_k: int | None = None) -> Tensor:
    """Encoded and decoded, by way of what is written beside the rows."""
    form: Coding = coding(coding_for(answers, kept, top_k).to_json())
    rows = form.encode(answers)
    assert rows.shape == (len(answers), form.nbytes)
    return form.decode(rows, answers.device)


class TestCoding:
    @pytest.mark.parametrize("shape", [(3, 4, 5, 6), (3, 7), (3, 5, 7), (3,)])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_nothing_is_lost_in_32_bits(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        answers = torch.randn(shape).to(dtype)
        assert torch.equal(back(answers), answers)
        assert back(answers).dtype == dtype

    @pytest.mark.parametrize("form", [torch.channels_last, torch.contiguous_format])
    def test_the_layout_stays(self, form: torch.memory_format) -> None:
        answers = torch.randn(3, 4, 5, 6).to(memory_format=form)
        assert back(answers, "float16").stride() == answers.stride()

    @pytest.mark.parametrize("top_k", [None, 2])
    def test_what_16_bits_cannot_hold_is_refused(self, top_k: int | None) -> None:
        with pytest.raises(RecipeError, match=r"they reach 1e\+05, more than float16 holds: set cache.dtype=float32"):
            back(torch.tensor([[1.0, 2.0, 1e5]]), "float16", top_k)
        assert back(torch.tensor([[1.0, torch.inf]]), "float16").isinf().sum() == 1

    @pytest.mark.parametrize(("kept", "tolerance"), [("float32", 1e-5), ("float16", 2e-2)])
    @pytest.mark.parametrize("classes", [12, 40_000])
    def test_top_k_keeps_the_largest_probabilities(self, kept: str, tolerance: float, classes: int) -> None:
        logits = 5 * torch.randn(4, classes)
        probabilities, read = logits.double().softmax(1), back(logits, kept, 3).double().softmax(1)
        for row in range(4):
            order = probabilities[row].argsort(descending=True)
            for label in order[:3]:
                assert read[row, label].item() == pytest.approx(probabilities[row, label].item(), rel=tolerance)
            left = probabilities[row, order[3:]].sum().item()
            others = read[row, order[3:]]
            assert others.max() == others.min()
            assert others[0].item() == pytest.approx(left / (classes - 3), rel=tolerance)

    @pytest.mark.parametrize(("shape", "k"), [((2, 4, 3, 3), 2), ((2, 4), 4)])
    def test_top_k_is_for_logits_of_more_classes(self, shape: tuple[int, ...], k: int) -> None:
        with pytest.raises(RecipeError, match=f"cache.top_k={k} needs logits of more classes"):
            back(torch.randn(shape), top_k=k)

    def test_a_tap_has_one_shape(self) -> None:
        form = coding_for(torch.randn(2, 4), "float32", None)
        with pytest.raises(RecipeError, match=r"of shape \(4,\) and \(5,\)"):
            form.encode(torch.randn(2, 5))


def trained(folder: Path, recipe: Recipe | None) -> torch.nn.Module:
    data = Digits(0, limit=100, batch_size=32)
    set_views(data, recipe.cache.views if recipe else None)
    module = Distiller(
        network(),
        network(1),
        Classification(TEN_CLASSES),
        Stage(epochs=3, losses=HINTS),
        optimizer=Optimizer(),
        schedule=Schedule(),
        example=data.calibration(8)[0],
        injectable={"train_labels": data.train_labels(), "batch_size": data.batch_size},
        cached=(lambda teacher: cached(teacher, recipe, data)) if recipe else lambda teacher: teacher,
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
    here = cached(Counting(teacher, [""]), load(str(recipe)), data)
    for batch in data.every_view():
        torch.testing.assert_close(here(batch)[""], teacher(batch.inputs).detach(), rtol=1e-3, atol=1e-3)
    assert here.teacher.asked == 0
