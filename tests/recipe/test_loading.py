"""Every recipe in the repository loads, and every mistake in one is named before anything runs."""

import contextlib
import re
from pathlib import Path
from random import Random

import pytest

from benchmarks.faults.recipes import FAULTS
from distill.errors import RecipeError
from distill.recipe.files import RECIPES, find, names, summary
from distill.recipe.loading import load
from distill.recipe.plain import resolved


@pytest.mark.parametrize("name", names())
class TestEveryRecipe:
    def test_loads(self, name: str) -> None:
        assert load(name).recipe == name

    def test_says_how_to_run_it_and_what_it_is(self, name: str) -> None:
        assert re.search(rf"^#   python train.py recipe={re.escape(name)}( |$)", find(name).read_text(), re.MULTILINE)
        assert len(summary(name)) > 20

    def test_fits_on_one_screen(self, name: str) -> None:
        assert len(find(name).read_text().splitlines()) <= 50

    def test_loads_again_as_it_was_resolved(self, name: str, tmp_path: Path) -> None:
        recipe = load(name)
        (tmp_path / "again.yaml").write_text(resolved(recipe))
        assert resolved(load(str(tmp_path / "again.yaml"))) == resolved(recipe)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("stages.plain.stochastic_depth=1", "there is no 'plain'"),
        (f"stages.distill.stochastic_depth={'9' * 400}", "stochastic_depth is 9+, but is a probability"),
        ("stages.distill.epoch=3", "stages.distill.*'epoch'.*Did you mean 'epochs'"),
        (
            "stages.distill.losses.at.wieght=3",
            "at stages.distill.losses.at: unknown key 'wieght'. Did you mean 'weight'",
        ),
        ("stages.distill.losses.kd.temperature=hot", "losses.kd.temperature: 'hot' is not a number"),
        ("+stages.distill.losses.kdd={}", "unknown loss 'kdd'. Did you mean 'kd'"),
        ("stages.distill.losses=kd", "at stages.distill.losses: 'kd' stands where a mapping from names"),
        ("stages.distill.losses={'mine.losses:sharper': {}}", "write sharper: {name: 'mine.losses:sharper', ...}"),
        (
            "stages.distill.losses.kd.weight=.nan",
            "at stages.distill.losses.kd.weight: weight is nan, but must be finite",
        ),
        ("stages.distill.epochs=0", "at stages.distill.epochs: epochs is 0, but must be at least 1"),
        ("student.name=shufflenet_v3", "unknown network 'shufflenet_v3'. Did you mean 'shufflenet_v2'"),
        ("student.widht=1", "at student: unknown key 'widht'. Did you mean 'width'"),
        ("data.name=mnst", "unknown data set 'mnst'. Did you mean 'mnist'"),
        ("+compress.prun={}", "at compress.prun: unknown compression hook 'prun'"),
        ("+export.onx={}", "unknown export format 'onx'. Did you mean 'onnx'"),
        ("teacher={name: resnet20}", "the teacher has no weights: give teacher.weights=FILE"),
        ("teacher=null", "loss 'fitnet' compares with a teacher, but the recipe has none"),
        ("stages={}", "no stages"),
        ("optimizer.lr=-1", "at optimizer.lr: lr is -1.0, but must be above 0"),
        ("schedule.milestones=[3]", "'step' needs them"),
        ("trainer.precison=16", "Lightning's Trainer 'precison'. Did you mean 'precision'"),
        ("sed=3", "unknown key 'sed'. Did you mean 'seed'"),
        ("student.num_classes=7 teacher.num_classes=8", "num_classes: the teacher has 8, the student 7"),
        ("stages.distill", "'stages.distill' is not of the form key.path=value"),
        (
            "stages.distil.epochs=1",
            "at stages: there is no 'distil'. Did you mean 'distill'.*To add it, write [+]s",
        ),
        ("compress.prune={}", "at compress: there is no 'prune'"),
        ("stages.distill.losses.crd={}", "at stages.distill.losses: there is no 'crd'"),
        ("export.openvino={}", "at export: there is no 'openvino'"),
        ("teachers.big={name: resnet56, epochs: 1}", "at teachers: there is no 'big'. To add it"),
        ("+compress.svd={}", "compress.svd is there already; leave out the '[+]'"),
        ("student={name:shufflenet_v2}", "at student: 'name:shufflenet_v2' lacks a blank.*write name: shufflenet_v2"),
        ("stages={distill: null, epochs: 3}", "at stages.distill: nothing stands where a section is expected; are its"),
        ("stages={epochs: 3}", "at stages.epochs: 3 stands where a section .*'epochs' is a setting: is it indented"),
        ("stages.distill.losses={kd: null, weight: 2}", "at stages.distill.losses.weight: 2 stands .*'weight' is a s"),
        ("stages.distill.epochs=two", "at stages.distill.epochs: 'two' is not a whole number"),
        ("stages.distill.epochs=", "at stages.distill.epochs: nothing is not a whole number"),
        ("stages.distill.epochs=-1", "at stages.distill.epochs: epochs is -1, but must be at least 1"),
        ("stages.distill.task_weight=-1", "at stages.distill.task_weight: task_weight is -1.0"),
        ("stages.distill.task_weight=.nan", "at stages.distill.task_weight: task_weight is nan"),
        ("stages.distill.losses.kd.weight=-2", "at stages.distill.losses.kd.weight: weight is -2.0"),
        (
            "stages={only: {epochs: 1, task_weight: 0, losses: {kd: {weight: 0}}}}",
            "at stages.only: nothing to train",
        ),
        ("output=", "at output: nothing is not a path"),
        ("optimizer.lr=.inf", "at optimizer.lr: lr is inf, but must be finite"),
        ("optimizer.momentum=-3", "at optimizer.momentum: momentum is -3.0, but must be at least 0 and below 1"),
        ("seed=99999999999999999999", "at seed: seed is 99999999999999999999, but must be at least 0 and at most"),
        ("trainer.max_epochs=3", "at trainer.max_epochs: epochs belong to stages: write stages.NAME.epochs"),
        ("trainer.gradient_clip_val=-1", "at trainer.gradient_clip_val: gradient_clip_val is -1, but must be"),
        ("trainer.precision=17", "at trainer.precision: unknown precision '17'. There are: 16-true"),
        ("trainer.overfit_batches=1", "at trainer.overfit_batches: .* data.limit"),
        ("trainer.max_epoch=3", "unknown setting of Lightning's Trainer 'max_epoch'; .* write stages.NAME.epochs"),
        ("trainer.devices=0", "at trainer.devices: devices is 0, but is at least 1"),
        (
            "output=${oc.env:NO_SUCH}",
            "at output: the environment variable NO_SUCH is not set; .*[$]{oc.env:NO_SUCH,VAL",
        ),
        ("output=${env:NO_SUCH}", "at output: unknown '[$]{env:...}'; there are .* and [$]{oc.env:NAME}"),
        ("output=${nothing}", "at output: .* names a value that the recipe does not have"),
        (
            "optimizer.lr=[1",
            "the value of 'optimizer.lr=.1' is not YAML: .* a bracket or brace that is not cl",
        ),
        ("student={name: 'math:pi'}", "at student: network 'math:pi' is neither a function nor a class"),
        ("+export.x={name: 'shutil:copy'}", "at export.x: export format 'shutil:copy' asks for .*but may ask for"),
    ],
)
def test_names_the_mistake(override: str, complaint: str) -> None:
    with pytest.raises(RecipeError, match=f"recipe 'smoke'.*{complaint}"):
        load("smoke", override.split(" ") if " teacher" in override else [override])


def test_weights_of_16_bits_are_not_averaged() -> None:
    with pytest.raises(RecipeError, match="at ema: .*bf16-true have too few digits .*: choose bf16-mixed or 32-true"):
        load("smoke", ["ema=0.99", "trainer.precision=bf16-true"])
    assert load("smoke", ["ema=0.99", "trainer.precision=bf16-mixed"]).ema == 0.99


def test_an_unknown_recipe_gets_the_nearest() -> None:
    with pytest.raises(RecipeError, match="unknown recipe 'quickstrat'. Did you mean 'quickstart'"):
        load("quickstrat")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(RecipeError, match="no recipe file 'nowhere/mine.yaml'"):
        load("nowhere/mine.yaml")


def test_a_recipe_may_lie_in_ones_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text((RECIPES / "smoke.yaml").read_text())
    assert load("~/mine.yaml").recipe == "mine"
    with pytest.raises(RecipeError, match="recipe '~nosuchuser/mine.yaml' is in the home of nobody here"):
        load("~nosuchuser/mine.yaml")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty; the recipes that python train.py lists are examples"),
        ("# only a comment\n", "is empty"),
        ("- a\n- b\n", "holds list, not sections"),
        ("just words", "at the top: unknown key 'just words'"),
        ("student: [", "is not YAML: .*a bracket or brace that is not closed$"),
        ("data: {val: ${oc.env:X}}", "is not YAML: line 1, .* between brackets and braces '\\${...}' needs quotes"),
        ("stages:\nhint:\n    epochs: 1\n  other: 2\n", "line 4, column 3: not indented as the lines before it"),
        ("seed: 1\n\tstudent: lenet5\n", "is not YAML: line 2, column 1: a tab, where YAML wants blanks"),
        ("data:\n\tname: digits\n", "line 2, column 1: a tab, where YAML wants blanks"),
        ("output: @runs\n", "line 1, column 9: a text that begins with a character of YAML's own; put it in quotes"),
        (
            "output: a: b\n",
            "line 1, column 10: a second colon, or a line further in than the ones beside it; put texts with",
        ),
        ("seed: 'one\n", "a quotation mark that is not closed"),
        ("seed: 1\nseed: 2\n", "found duplicate key seed"),
        ("student: *network\n", "an alias .* without its anchor"),
        ("seed: !!int x\n", "cannot be read as YAML: invalid literal for int"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(RecipeError, match=f"bad.yaml.*{complaint}"):
        load(str(tmp_path / "bad.yaml"))


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"seed: 1 # \xff\n")
    with pytest.raises(RecipeError, match="is not a text in UTF-8: byte 10 is 0xff"):
        load(str(tmp_path / "bad.yaml"))


def test_a_plus_adds(tmp_path: Path) -> None:
    recipe = load("smoke", ["+stages.extra={epochs: 2}", "+compress.prune.sparsity=0.5", "+trainer.devices=1"])
    assert list(recipe.stages) == ["hint", "distill", "extra"]
    assert recipe.stages["extra"].epochs == 2
    assert list(recipe.compress) == ["svd", "quantize", "encode", "prune"]
    assert recipe.compress["prune"].sparsity == 0.5
    assert recipe.trainer == {"devices": 1}


def test_settings_that_the_recipe_does_not_write_need_no_plus() -> None:
    recipe = load("smoke", ["trainer.precision=bf16-mixed", "stages.hint.keep=best", "task.label_smoothing=0.1"])
    assert recipe.trainer == {"precision": "bf16-mixed"}
    assert recipe.stages["hint"].keep == "best"
    assert recipe.task.label_smoothing == 0.1


def test_a_name_alone_may_get_settings() -> None:
    recipe = load("smoke", ["student=mobilenet_v1", "student.width=0.5"])
    assert (recipe.student.name, recipe.student.width) == ("mobilenet_v1", 0.5)


def test_an_entry_of_a_list_can_be_set() -> None:
    recipe = load("smoke", ["stages.hint.losses.fitnet.student.1=stage4"])
    assert recipe.stages["hint"].losses["fitnet"].student == ["stage2", "stage4"]


def test_stages_may_be_called_by_numbers(tmp_path: Path) -> None:
    file = tmp_path / "numbers.yaml"
    file.write_text("base: smoke\nstages:\n  1: {epochs: 1}\n  2: {epochs: 1}\n")
    stages = load(str(file), ["stages.1.epochs=3", "+stages.3={epochs: 2}"]).stages
    assert {name: stage.epochs for name, stage in stages.items()} == {"1": 3, "2": 1, "3": 2}
    with pytest.raises(RecipeError, match="at stages: there is no '4'.* There are: 1, 2. To add it"):
        load(str(file), ["stages.4.epochs=3"])
    with pytest.raises(RecipeError, match="stages.2 is there already"):
        load(str(file), ["+stages.2={epochs: 1}"])


def test_a_tilde_is_the_home_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = load("smoke", ["output=~/runs", "cache={folder: ~/cache}", "teacher.weights=~/it.pt"])
    assert recipe.cache
    assert recipe.teacher
    found = (recipe.output, recipe.cache.folder, recipe.teacher.weights)
    assert found == (tmp_path / "runs", tmp_path / "cache", f"{tmp_path}/it.pt")
    assert load("smoke", ["teacher.weights=IMAGENET1K_V1"]).teacher.weights == "IMAGENET1K_V1"
    style = load("style/smoke", ["task.perceptual.weights=~/it.pt"])
    assert style.task.perceptual.weights == f"{tmp_path}/it.pt"
    with pytest.raises(RecipeError, match="at output: '~nobody-here/runs' is in the home of nobody here; write the"):
        load("smoke", ["output=~nobody-here/runs"])


def test_the_task_is_classification_unless_a_recipe_says_otherwise(tmp_path: Path) -> None:
    text = (RECIPES / "smoke.yaml").read_text()
    (tmp_path / "mine.yaml").write_text("\n".join(line for line in text.splitlines() if not line.startswith("task:")))
    assert load(str(tmp_path / "mine.yaml")).task.name == "classification"


def test_an_environment_variable_may_hold_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHS", "7")
    assert load("smoke", ["stages.distill.epochs=${oc.env:EPOCHS}"]).stages["distill"].epochs == 7


@pytest.mark.parametrize("kind", FAULTS.kinds)
def test_mutated_recipes_load_or_are_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    """``python -m benchmarks.faults`` tries more of them."""
    for seed in range(60):
        with contextlib.suppress(RecipeError):
            FAULTS.attempt(tmp_path, kind, Random(seed))


@pytest.mark.parametrize(
    ("codec", "complaint"),
    [
        ("[]", "a codec has at least one stage"),
        ("''", "a codec has at least one stage"),
        ("[block(size=257), ans]", "size is 257, but must be at least 1 and at most 256"),
        ("[csc(index_bits=0)]", "index_bits is 0, but must be at least 1"),
        ("[delta, ants]", "unknown codec 'ants'. Did you mean 'ans'"),
    ],
)
def test_stages_of_a_codec_are_checked_when_a_recipe_is_loaded(codec: str, complaint: str) -> None:
    with pytest.raises(RecipeError, match=f"at compress.encode.codec: .*{complaint}"):
        load("smoke", [f"+compress.encode.codec={codec}"])


def test_a_section_whose_lines_are_all_comments_is_empty(tmp_path: Path) -> None:
    text = (RECIPES / "smoke.yaml").read_text().partition("compress:")[0]
    (tmp_path / "mine.yaml").write_text(f"{text}compress:\n  # svd: {{}}\nexport:\n")
    recipe = load(str(tmp_path / "mine.yaml"))
    assert (recipe.compress, recipe.export) == ({}, {})


@pytest.mark.parametrize("value", ['"a #b"', "'a #b'", "a#b"])
def test_a_number_sign_in_quotes_or_within_a_word_is_part_of_the_value(value: str) -> None:
    assert str(load("smoke", [f"output={value}"]).output) == value.strip("\"'")


@pytest.mark.parametrize("value", ["a #b", "#b", '"a" #b', "[a] # b"])
def test_what_yaml_would_take_for_a_comment_is_refused(value: str) -> None:
    with pytest.raises(RecipeError, match="takes what follows ' #' for a comment; put the value in double quotes"):
        load("smoke", [f"output={value}"])
