"""Sweeps: W&B's file format read right, every trial done once, whatever stops and however many work at it."""

import json
import math
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from distill.errors import DistillError, RecipeError, UserError
from distill.recipe.files import RECIPES
from distill.recipe.loading import load
from distill.recipe.plain import resolved
from distill.sweep import sweep, train
from distill.sweep.file import read
from distill.sweep.work import Report

COMMAND = ["${env}", "python", "train.py", "recipe=smoke", "${args_no_hyphens}"]
RATES = {"optimizer.lr": {"distribution": "log_uniform_values", "min": 0.001, "max": 1.0}}
GRID = {"optimizer.lr": {"values": [0.1, 0.2, 0.3]}, "stages.hint.epochs": {"min": 1, "max": 2}}


TINY = """
task: {name: classification}
data: {name: digits, limit: 200}
teacher: {name: "tests.nets:ConvNet", epochs: 1}
student: {name: "tests.nets:ConvNet"}
baseline: false
stages:
  labels: {epochs: 1}
  distill: {epochs: 1, losses: {kd: {}}}
compress:
  quantize: {}
tracking: {mode: disabled}
"""


def bowl(name: str, overrides: Sequence[str], report: Report) -> Mapping[str, float]:
    """Stands for a run: best at a learning rate of 0.1."""
    return {"val/accuracy": 1 - abs(math.log10(setting(overrides, "optimizer.lr") / 0.1)), "bytes": 100.0}


def climb(name: str, overrides: Sequence[str], report: Report) -> Mapping[str, float]:
    """Better every epoch."""
    metrics = bowl(name, overrides, report)
    for epoch in range(1, 5):
        report(epoch, {"val/accuracy": metrics["val/accuracy"] - 1 / epoch})
    return metrics


def fussy(name: str, overrides: Sequence[str], report: Report) -> Mapping[str, float]:
    if setting(overrides, "optimizer.lr") == 0.2:
        raise DistillError("diverged")
    return bowl(name, overrides, report)


def interrupted(name: str, overrides: Sequence[str], report: Report) -> Mapping[str, float]:
    if setting(overrides, "optimizer.lr") == 0.2:
        raise KeyboardInterrupt
    return bowl(name, overrides, report)


def slow(name: str, overrides: Sequence[str], report: Report) -> Mapping[str, float]:
    time.sleep(60)
    return bowl(name, overrides, report)


def combined(name: str, overrides: Sequence[str], report: Report) -> Mapping[str, float]:
    """A trial that ends only when two processes have begun one: a quick worker cannot take them all."""
    folder = Path(dict(word.split("=", 1) for word in overrides)["output"]) / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    return bowl(name, overrides, report)


def setting(overrides: Sequence[str], key: str) -> float:
    return float(dict(word.split("=", 1) for word in overrides)[key])


def write(folder: Path, **changes: object) -> Path:
    tree = {
        "program": "train.py",
        "method": "random",
        "metric": {"name": "val/accuracy", "goal": "maximize"},
        "parameters": RATES,
        "command": COMMAND,
    }
    file = folder / "file.yaml"
    file.write_text(yaml.safe_dump({**tree, **changes}, sort_keys=False))
    return file


def go(folder: Path, trials: int | None = None, jobs: int = 1, objective=bowl, **changes: object):
    return sweep(
        write(folder, **changes), trials=trials, jobs=jobs, overrides=[f"output={folder / 'runs'}"], objective=objective
    )


def chosen(result, key: str = "optimizer.lr") -> list[float]:
    return [trial.params[key] for trial in result.trials]


# --- the file


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
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


# --- the search


def test_a_grid_is_every_combination_once(tmp_path: Path) -> None:
    result = go(tmp_path, method="grid", parameters=GRID)
    points = [(trial.params["optimizer.lr"], trial.params["stages.hint.epochs"]) for trial in result.trials]
    assert points == [(0.1, 1), (0.1, 2), (0.2, 1), (0.2, 2), (0.3, 1), (0.3, 2)]
    assert len(go(tmp_path, method="grid", parameters=GRID).trials) == 6


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_the_same_sweep_makes_the_same_trials(tmp_path: Path, method: str) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    first = chosen(go(tmp_path / "a", 12, method=method))
    go(tmp_path / "b", 5, method=method)
    assert chosen(go(tmp_path / "b", 12, method=method)) == first
    assert len(set(first)) == 12
    if method == "bayes":  # ten to look around, then it knows
        distances = [abs(math.log10(rate / 0.1)) for rate in first]
        assert sum(distances[10:]) / 2 < sum(distances[:10]) / 10


def test_the_best_recipe_is_written_out_and_loads(tmp_path: Path) -> None:
    result = go(tmp_path, method="grid", parameters=GRID)
    recipe = load(str(result.best))
    assert (recipe.optimizer.lr, result.value) == (0.1, 1.0)
    by_hand = load("smoke", [f"output={tmp_path / 'runs'}", "optimizer.lr=0.1", "stages.hint.epochs=1"])
    assert resolved(recipe) == resolved(by_hand)
    header = result.best.read_text()
    assert re.match(r"# Best of 6 trials of sweep 'file' \(grid\): val/accuracy 1.0000, \d{4}-\d\d-\d\d\.\n", header)
    assert f"#   python train.py recipe={result.best}\n" in header


def test_minimising_is_the_default_goal_and_any_size_can_be_the_metric(tmp_path: Path) -> None:
    def size(name: str, overrides: Sequence[str], report: Report) -> Mapping[str, float]:
        return {"bytes": setting(overrides, "optimizer.lr")}

    result = go(tmp_path, objective=size, method="grid", parameters=GRID, metric={"name": "bytes"})
    assert result.value == 0.1


def test_a_trial_that_fails_is_recorded_and_the_sweep_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    result = go(tmp_path, objective=fussy, method="grid", parameters=GRID)
    states = [trial.state for trial in result.trials]
    assert states.count(TrialState.FAIL) == 2
    assert states.count(TrialState.COMPLETE) == 4
    assert "DistillError: diverged" in capsys.readouterr().out
    again = go(tmp_path, objective=bowl, method="grid", parameters=GRID)
    assert [trial.state for trial in again.trials] == states  # done is done


def test_a_sweep_in_which_nothing_works_says_why(tmp_path: Path) -> None:
    with pytest.raises(DistillError, match="no trial of sweep .* ended well; .* val/accuracy is nan"):
        go(tmp_path, 2, objective=lambda *_: {"val/accuracy": math.nan})


def test_early_termination_stops_what_falls_behind(tmp_path: Path) -> None:
    rates = {"optimizer.lr": {"values": [0.1, 0.9, 0.8, 0.7]}}
    stop = {"type": "hyperband", "min_iter": 2, "eta": 2}
    result = go(tmp_path, objective=climb, method="grid", parameters=rates, early_terminate=stop)
    assert [trial.state.name for trial in result.trials] == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED"]
    # At epoch 2 the last one is among the better half, at epoch 4 it is not.
    assert [len(trial.intermediate_values) for trial in result.trials] == [4, 2, 2, 4]
    whole = {"type": "hyperband", "max_iter": 16, "s": 3, "eta": 2}  # compared after 2, 4 and 8 epochs
    again = go(tmp_path, objective=climb, method="grid", parameters=rates, early_terminate=whole)
    assert [len(trial.intermediate_values) for trial in again.trials] == [4, 2, 2, 4]


def test_a_trials_own_output_goes_to_its_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def chatty(name: str, overrides: Sequence[str], report: Report) -> Mapping[str, float]:
        from distill.console import console

        console.print("epoch by epoch")
        return bowl(name, overrides, report)

    go(tmp_path, 1, objective=chatty)
    assert "epoch by epoch" not in capsys.readouterr().out
    assert (tmp_path / "runs/sweeps/file/trials/0.log").read_text() == "epoch by epoch\n"


# --- stopping, going on, sharing


def test_an_interrupted_sweep_goes_on_to_the_same_total(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, objective=interrupted, method="grid", parameters=GRID)
    result = go(tmp_path, method="grid", parameters=GRID)
    assert [trial.state for trial in result.trials] == [TrialState.COMPLETE] * 6
    assert chosen(result) == [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]


def test_more_trials_can_be_asked_for_later_and_another_search_is_another_study(tmp_path: Path) -> None:
    three = go(tmp_path, 3)
    five = go(tmp_path, 5)
    assert chosen(five)[:3] == chosen(three)
    assert [trial.datetime_complete for trial in five.trials[:3]] == [t.datetime_complete for t in three.trials]
    assert len(go(tmp_path, 5).trials) == 5
    assert len(go(tmp_path, 2, method="bayes").trials) == 2


def test_a_trial_whose_process_was_killed_is_done_again(tmp_path: Path) -> None:
    arguments = (tmp_path, 2, 1, slow)
    process = multiprocessing.get_context("spawn").Process(target=go, args=arguments)
    process.start()
    log = tmp_path / "runs/sweeps/file/trials/0.log"
    deadline = time.monotonic() + 40
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    result = go(tmp_path, 2)
    assert [trial.state for trial in result.trials] == [TrialState.COMPLETE] * 2
    assert chosen(result) == chosen(go_elsewhere(tmp_path / "fresh", 2))


def go_elsewhere(folder: Path, trials: int):
    folder.mkdir()
    return go(folder, trials)


def test_several_processes_share_one_storage(tmp_path: Path) -> None:
    result = go(tmp_path, jobs=2, objective=combined, method="grid", parameters=GRID)
    assert chosen(result) == [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]
    assert len({trial.number for trial in result.trials}) == 6
    assert len({trial.user_attrs["worker"] for trial in result.trials}) == 2


def test_a_storage_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/no/such/folder.db"
    with pytest.raises(UserError, match=r"cannot use storage 'sqlite:.*folder.db'.*unable to open"):
        sweep(write(tmp_path), trials=1, storage=url, overrides=[f"output={tmp_path}"], objective=bowl)


def test_a_real_sweep_of_real_runs(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(TINY)
    result = go(
        tmp_path,
        objective=train,
        method="grid",
        parameters={"stages.distill.losses.kd.temperature": {"values": [2, 4]}},
        command=["train.py", f"recipe={recipe}", "${args_no_hyphens}"],
    )
    assert [trial.state for trial in result.trials] == [TrialState.COMPLETE] * 2
    assert list(result.trials[0].intermediate_values) == [1, 2]  # the first stage's epoch, then the other's
    best = load(str(result.best))
    assert best.stages["distill"].losses["kd"].temperature in (2, 4)
    reports = [json.loads(path.read_text()) for path in (tmp_path / "runs/tiny").glob("*/report.json")]
    values = [report["steps"][-1]["metrics"]["val/accuracy"] for report in reports]
    assert (len(values), max(values)) == (2, result.value)
