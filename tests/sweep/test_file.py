"""W&B's file format is read right, and a mistake in it is named."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from optuna.samplers import RandomSampler

from distill.errors import RecipeError, UserError
from distill.recipe.files import RECIPES
from distill.recipe.loading import load
from distill.sweep.file import read
from tests.sweep.objectives import (
    COMMAND,
    go,
    write,
)


@pytest.mark.parametrize("file", sorted((RECIPES / "sweeps").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_shipped_sweep_varies_settings_that_its_recipe_has(file: Path) -> None:
    plan = read(file)
    settings = dict(leaves(load(plan.recipe, plan.overrides)))
    for sample in plan.extremes():
        for word in plan.words(sample):
            key, _, value = word.partition("=")
            assert key in settings
            assert dict(leaves(load(plan.recipe, [*plan.overrides, word])))[key] == yaml.safe_load(value)


def leaves(section: object, prefix: str = "") -> list[tuple[str, object]]:
    """``vars`` all the way down: independent of how recipes resolve keys."""
    inner = section if isinstance(section, dict) else getattr(section, "__dict__", None)
    if inner is None:
        return [(prefix.removesuffix("."), section)]
    return [leaf for key, value in inner.items() for leaf in leaves(value, f"{prefix}{key}.")]


def test_words_are_what_a_wandb_agent_would_pass(tmp_path: Path) -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    parameters = {
        "seed": {"value": 3},
        "optimizer": {"parameters": {"name": {"value": "adamw"}, "lr": {"values": [0.1]}}},
        "stages.distill.losses.kd.temperature": {"values": [4.0, None, True, "a b"]},
    }
    plan = read(write(tmp_path, parameters=parameters))
    for temperature in (4.0, None, True, "a b"):
        sample = {"optimizer.lr": 0.1, "stages.distill.losses.kd.temperature": temperature}
        by_agent = {
            "seed": {"value": 3},
            "optimizer": {"value": {"name": "adamw", "lr": 0.1}},
            "stages.distill.losses.kd.temperature": {"value": temperature},
        }
        expected = create_sweep_command_args({"args": by_agent})["args_no_hyphens"]
        assert plan.words(sample) == expected


def test_the_command_gives_the_recipe_and_what_every_trial_shares(tmp_path: Path) -> None:
    command = [*COMMAND[:-1], "data.limit=100", "student={name: lenet5}", COMMAND[-1]]
    plan = read(write(tmp_path, command=command), ["seed=1"])
    assert plan.recipe == "smoke"
    assert plan.overrides == ("data.limit=100", "student={name: lenet5}", "seed=1")


def test_multiples_reach_their_bounds(tmp_path: Path) -> None:
    ranges = {"distribution": "q_uniform", "min": 0.3, "max": 0.9, "q": 0.3}
    plan = read(write(tmp_path, parameters={"optimizer.lr": ranges}))
    assert [sample["optimizer.lr"] for sample in plan.grid()] == [0.3, 0.6, 0.9]


def test_a_command_adds_entries_too(tmp_path: Path) -> None:
    added = "+compress.prune={sparsity: 0.2}"
    assert read(write(tmp_path, command=[*COMMAND, added])).overrides == (added,)


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text() + "method: random\n")
    with pytest.raises(RecipeError, match="is not YAML: 'method' stands twice"):
        read(path)


def test_anchors_and_merged_mappings_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, parameters={})
    rates = "parameters:\n  seed: &one {min: 1, max: 3}\n  data.limit: {<<: *one, max: 9}\n"
    path.write_text(path.read_text().replace("parameters: {}\n", rates))
    assert [(ranges.low, ranges.high) for ranges in read(path).space.values()] == [(1, 3), (1, 9)]


def test_what_the_command_line_sets_is_no_parameter(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="at parameters.seed: command or the command line sets it too; keep one"):
        read(write(tmp_path, parameters={"seed": {"values": [1, 2]}}), ["seed=77"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": [*COMMAND, "baselin"]}, "at command: 'baselin' is not of the form key.path=value"),
        ({"parameters": {"recipe": {"values": ["smoke"]}}}, "at parameters.recipe: a sweep is of one recipe"),
        ({"methode": "grid"}, r"at the top: unknown key 'methode'. Did you mean 'method'\?"),
        ({"method": "bayse"}, r"at method: unknown 'bayse'. Did you mean 'bayes'\?"),
        (
            {"metric": {"name": "val/accuracy", "gaol": "maximize"}},
            "at metric: unknown key 'gaol'. Did you mean 'goal'",
        ),
        ({"metric": {"name": "val/accuracy", "goal": "max"}}, "at metric.goal: unknown 'max'"),
        ({"metric": {"name": "test/accuracy"}}, "at metric.name: 'test/accuracy' cannot be optimised"),
        (
            {"metric": {"name": "val/acuracy"}},
            "at metric.name: unknown metric 'val/acuracy'. Did you mean 'val/accuracy'",
        ),
        ({"metric": None}, "at metric: None stands where a mapping is expected"),
        ({"parameters": {}}, "at parameters: {} stands where"),
        ({"parameters": {"seed": 3}}, r"at parameters.seed: 3 says no range; write \{value: 3\}"),
        ({"parameters": {"seed": {"valeus": [1]}}}, "at parameters.seed: unknown key 'valeus'"),
        ({"parameters": {"seed": {"values": []}}}, r"at parameters.seed: values is \[\]"),
        ({"parameters": {"seed": {"min": 1}}}, "at parameters.seed: 'uniform' needs min and max; 'max' is missing"),
        ({"parameters": {"seed": {"min": 2, "max": 1}}}, "at parameters.seed: min 2 is not below max 1"),
        ({"parameters": {"seed": {"min": "1e-4", "max": 1}}}, "seed.min: '1e-4' is not a number; YAML wants a point"),
        ({"parameters": {"seed": {"distribution": "int_uniform", "min": 1, "max": 2.5}}}, "2.5 is not a whole number"),
        (
            {"parameters": {"seed": {"distribution": "unifrom", "min": 1, "max": 2}}},
            "'unifrom'. Did you mean 'uniform'",
        ),
        (
            {"parameters": {"seed": {"distribution": "normal", "mu": 1, "sigma": 2}}},
            "do not know distribution 'normal'",
        ),
        ({"parameters": {"seed": {"distribution": "log_uniform_values", "min": 0, "max": 2}}}, "0 has no logarithm"),
        ({"parameters": {"seed": {"distribution": "q_uniform", "min": 1, "max": 2, "q": 3}}}, "no multiple of q = 3"),
        ({"command": None}, "at command: train.py takes its parameters from"),
        ({"command": [*COMMAND[:-1], "${args}"]}, "at command: train.py takes its parameters from"),
        ({"command": ["train.py", "${args_no_hyphens}"]}, "at command: names 0 recipes instead of one"),
        ({"early_terminate": {"type": "hyperband"}}, "at early_terminate: needs min_iter, or max_iter and s"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 0}}, "min_iter: 0 is not a whole number from 1 on"),
        ({"early_terminate": {"type": "median"}}, "at early_terminate.type: unknown 'median'"),
        ({"run_cap": "ten"}, "at run_cap: 'ten' is not a whole number"),
        ({"parameters": {"optimizer.lrr": {"value": 1}}}, "at optimizer: unknown key 'lrr'. Did you mean 'lr'"),
        ({"parameters": {"stages.hint.epochs": {"values": [1, 0]}}}, "epochs is 0, but must be at least 1"),
        ({"command": [*COMMAND[:3], "recipe=smok", COMMAND[-1]]}, "unknown recipe 'smok'. Did you mean 'smoke'"),
        ({"method": "grid"}, "at parameters.optimizer.lr: a grid needs 'values' or whole numbers"),
        (
            {"metric": {"name": "bytes"}, "early_terminate": {"type": "hyperband", "min_iter": 1}},
            "'bytes' is known only",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named_before_any_trial(tmp_path: Path, changes: dict, message: str) -> None:
    def never(*_: object) -> Mapping[str, float]:
        raise AssertionError("a trial was run")

    with pytest.raises(RecipeError, match=re.compile(f"file.yaml.*{message}")):
        go(tmp_path, 2, objective=never, **changes)


def test_what_is_no_sweep_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot read sweep .*nothing.yaml"):
        read(tmp_path / "nothing.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("method: [")
    with pytest.raises(RecipeError, match="broken.yaml' is not YAML"):
        read(broken)


def test_a_random_sweep_has_to_say_how_many_trials(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run_cap: say how many with --trials N"):
        go(tmp_path)


@given(st.data())
def test_samples_keep_to_what_wandb_documents(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    low = data.draw(st.integers(1, 50))
    high = data.draw(st.integers(low + 5, 1000))
    q = data.draw(st.sampled_from([2, 5, 0.5, 2.5]))
    bounds = {"min": low, "max": high}
    parameters = {
        "a": bounds,
        "b": {"min": float(low), "max": high},
        "c": {"distribution": "log_uniform_values", **bounds},
        "d": {"distribution": "q_uniform", **bounds, "q": q},
        "e": {"distribution": "log_uniform", "min": math.log(low), "max": math.log(high)},
        "f": {"values": [low, "x"]},
        "g": {"distribution": "uniform", **bounds},
    }
    plan = read(write(tmp_path_factory.getbasetemp(), parameters=parameters))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trial = optuna.create_study(sampler=RandomSampler(data.draw(st.integers(0, 99)))).ask(dict(plan.space)).params
    assert [type(trial[key]) for key in "abcdeg"] == [
        int,
        float,
        float,
        int if isinstance(q, int) else float,
        float,
        float,
    ]
    assert all(low * 0.999999 <= trial[key] <= high * 1.000001 for key in "abcdeg")
    assert trial["d"] / q == pytest.approx(round(trial["d"] / q))
    assert trial["f"] in (low, "x")


def test_log_ranges_are_uniform_in_the_exponent(tmp_path: Path) -> None:
    plan = read(write(tmp_path))
    study = optuna.create_study(sampler=RandomSampler(0))
    exponents = [math.log10(study.ask(dict(plan.space)).params["optimizer.lr"]) for _ in range(600)]
    shares = [sum(low <= e < low + 1 for e in exponents) / 600 for low in (-3, -2, -1)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.06)  # three standard deviations
