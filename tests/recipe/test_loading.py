"""Every recipe in the repository loads, and every mistake in one is named before anything runs."""

from pathlib import Path

import pytest

from distill.errors import RecipeError
from distill.recipe.files import RECIPES, find, names, summary
from distill.recipe.loading import load
from distill.recipe.plain import resolved


@pytest.mark.parametrize("name", names())
class TestEveryRecipe:
    def test_loads(self, name: str) -> None:
        assert load(name).recipe == name

    def test_says_how_to_run_it_and_what_it_is(self, name: str) -> None:
        assert f"#   python train.py recipe={name}\n" in find(name).read_text()
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
    ],
)
def test_names_the_mistake(override: str, complaint: str) -> None:
    with pytest.raises(RecipeError, match=f"recipe 'smoke'.*{complaint}"):
        load("smoke", override.split(" ") if " teacher" in override else [override])


def test_an_unknown_recipe_gets_the_nearest() -> None:
    with pytest.raises(RecipeError, match="unknown recipe 'quickstrat'. Did you mean 'quickstart'"):
        load("quickstrat")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(RecipeError, match="no recipe file 'nowhere/mine.yaml'"):
        load("nowhere/mine.yaml")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "student: [", "just words"])
def test_a_file_that_is_no_recipe_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(RecipeError, match="bad.yaml"):
        load(str(tmp_path / "bad.yaml"))


def test_a_scalar_sets_and_a_mapping_replaces() -> None:
    recipe = load("smoke", ["stages.distill.losses.kd.temperature=8", "student={name: lenet5}"])
    assert recipe.stages["distill"].losses["kd"].temperature == 8
    assert recipe.student.name == "lenet5"
    assert not hasattr(recipe.student, "width")


def test_values_may_hold_an_equals_sign_and_exponents() -> None:
    recipe = load("smoke", ["optimizer.lr=1e-3", "student.weights=runs/a=b.pt"])
    assert recipe.optimizer.lr == 0.001
    assert recipe.student.weights == "runs/a=b.pt"


def test_keeps_the_order_of_stages_and_hooks() -> None:
    recipe = load("smoke")
    assert list(recipe.stages) == ["hint", "distill"]
    assert list(recipe.compress) == ["svd", "quantize", "encode"]


def test_a_recipe_outside_the_repository_inherits_from_ours_and_from_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text("base: smoke\nseed: 3\n")
    (tmp_path / "common.yaml").write_text((RECIPES / "smoke.yaml").read_text())
    (tmp_path / "beside.yaml").write_text("base: common\nseed: 4\n")
    assert load(str(tmp_path / "ours.yaml")).seed == 3
    assert load(str(tmp_path / "beside.yaml")).seed == 4


def test_a_base_has_no_base(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: smoke\n")
    (tmp_path / "b.yaml").write_text("base: a\n")
    with pytest.raises(RecipeError, match="base 'a' has a base of its own"):
        load(str(tmp_path / "b.yaml"))


def test_a_loss_from_outside_follows_the_same_rule() -> None:
    address = "distill.losses.kd:soft_targets"
    recipe = load("smoke", [f"+stages.distill.losses.mine={{name: '{address}', temperature: 3}}"])
    assert recipe.stages["distill"].losses["mine"].temperature == 3
