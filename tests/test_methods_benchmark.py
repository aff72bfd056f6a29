"""The budget that all methods of a comparison share."""

import re
from pathlib import Path

from benchmarks.methods import FOLDER, SMALLER, WITH_BOTH, Budget, tables
from distill.recipe.files import names
from distill.recipe.loading import load


def test_a_longer_budget_is_divided_among_stages_as_the_recipe_divides_it() -> None:
    budget = Budget(epochs=30, teacher_epochs=60, settings=("data.limit=null", "cache=null"))
    for name in [name for name in names() if name.startswith(f"{FOLDER}/") and not name.endswith("/base")]:
        recipe, longer = load(name), load(name, budget.lines(name))
        share = [stage.epochs / sum(one.epochs for one in recipe.stages.values()) for stage in recipe.stages.values()]
        epochs = [stage.epochs for stage in longer.stages.values()]
        assert sum(epochs) == 30
        assert all(abs(found - 30 * part) <= 1 for found, part in zip(epochs, share, strict=True))
        assert {teacher.epochs for teacher in longer.all_teachers().values()} <= {60}
        assert longer.cache is None


def test_results_of_another_budget_are_told_apart() -> None:
    budgets = (Budget(), Budget(30), Budget(30, 60), Budget(30, 60, ("cache=null",)))
    assert len({tuple(budget.arguments) for budget in budgets}) == 4
    assert budgets[0].arguments == budgets[0].lines(WITH_BOTH) == []


def test_recipes_say_which_methods_have_smaller_weights_than_their_papers() -> None:
    said = re.compile(r"^# The (published|paper's) weights?, \d", re.MULTILINE)
    recipes = Path(__file__).parents[1].joinpath("recipes", FOLDER).glob("*.yaml")
    assert {recipe.stem for recipe in recipes if said.search(recipe.read_text())} == SMALLER


def test_a_further_setting_is_compared_with_the_same_seed_without_it() -> None:
    about = {"method": "kd", "val": 1.0, "best": 1.0, "epoch_seconds": [1.0], "peak_mb": 1, "params": 1, "macs": 1}
    kept = {"measured": "2026-11-28, x86_64"}
    plain = [{**about, **kept, "budget": "--epochs=2", "seed": seed, "test": 80.0 + seed} for seed in (0, 1)]
    found = tables([*plain, {**about, **kept, "budget": "--epochs=2 ema=0.9", "seed": 1, "test": 80.5}])
    assert "| `ema=0.9` | kd | 1 | -0.50 | 80.50 |" in found["methods --epochs=2: further settings"]
    assert set(found) == {"methods --epochs=2", "methods --epochs=2 ema=0.9", "methods --epochs=2: further settings"}
