"""Tables of benchmarks that are over seeds, of methods and of layers: a row in, the right cells out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import _race, blocks, compression, kernels, methods, peers, seeds, students
from distill.artifact import Artifact
from distill.errors import ExportError


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def step(accuracy: Any, **about: Any) -> dict[str, Any]:
    cost = {"params": 1000, "macs": 20000, "bytes": 4000, "latency_ms": {"batch1": 0.5, "batch32": 8.0}, "seconds": 9.6}
    return {"recipe": "toy", "overrides": "", "step": "teacher", "accuracy": accuracy, **cost, "measured": "a", **about}


def test_seeds_one_by_one_replace_what_was_known_of_them_together() -> None:
    together = step({"mean": 80.0, "stdev": 3.0}, seeds=3)
    (table,) = seeds.tables([together]).values()
    assert "| teacher | 1,000 | 20,000 | 4,000 | 80.00 ± 3.00 | 0.5 | 8 | 10 |" in table
    (table,) = seeds.tables([together, *(step(90.0 + seed, seed=seed) for seed in (2, 0, 1))]).values()
    assert "| 91.00 ± 1.00 |" in table
    assert [*seeds.tables([step(90.0, seed=0, overrides="data.limit=5")])] == ["seeds toy data.limit=5"]


def test_the_last_file_is_compared_with_that_of_the_teacher_of_the_same_seed() -> None:
    rows = []
    for seed in range(2):
        rows += [step(90.0 + seed, seed=seed), step(88.0, seed=seed, step="baseline")]
        rows += [step(89.0 + seed, seed=seed, step="student")]
        latency = {"batch1": 0.25, "batch32": 8.0}
        rows += [step(88.5 + seed, seed=seed, step="export/onnx", bytes=400, latency_ms=latency)]
    assert seeds.tables(rows)["seeds toy: in one line"] == (
        "10 ± 0 times smaller and 2.0 ± 0.0 times as fast as the teacher's file, 1.50 ± 0.00 points below the teacher; "
        "distillation gains +1.50 ± 0.71 points"
    )
    assert seeds.in_one_line(rows[:4]).endswith("points (one seed)")
    assert "seeds toy: in one line" not in seeds.tables(rows[:1])


def network(way: str, test: float, size: int, **about: Any) -> dict[str, Any]:
    cost = {"params": 100, "macs": 2000, "bytes": size, "measured": "today"}
    return {"student": "toy", "way": way, "test": test, **cost, **about}


def test_what_a_way_costs_is_the_mean_difference_from_the_same_seed() -> None:
    teacher = network("", 90.0, 8000, student="teacher", seed=0)
    plain = [network("fp32", 80.0 + 2 * seed, 4000, seed=seed) for seed in range(2)]
    small = [network("int8", 79.0 + 2 * seed, 1000, seed=seed) for seed in range(2)]
    lone = network("cp", 70.0, 2000, seed=5)
    found = compression.tables([teacher, *plain, *small, lone, network("svd, speed", 81.5, 2000, seed=0)])
    assert "| toy | int8 | 80.00 ± 1.41 | -1.00 ± 0.00 | 100 | 2,000 | 1,000 | 8 |" in found["compression"]
    assert "| toy | cp | 70.00 |  | 100 | 2,000 | 2,000 | 4 |" in found["compression"]
    assert "speed" not in found["compression"]
    assert "| svd, speed | 81.50 | 100 | 2,000 |" in found["compression factors toy"]


def test_a_race_leaves_cells_empty_where_a_runtime_does_not_take_a_network() -> None:
    column = "OpenVINO, 1 thread, batch 1"
    race = {"milliseconds": {"fp32": {column: 2.0}, "nncf": {column: 0.5}, "cp": {}}, "measured": "today"}
    race["times_as_fast"] = {"fp32": {column: 1.0}, "nncf": {column: 4.0}, "cp": {}}
    fails = {"student": "toy", "peer": "nncf", "seed": 0, "error": "RuntimeError: no", "measured": "today"}
    found = peers.tables([{"student": "toy", "race": "peers"} | race, fails])
    header, _, *lines = found["peers race toy"].splitlines()
    place = cells(header).index(column)
    assert [cells(line)[place] for line in lines[:3]] == ["2.00 (1.00)", "0.50 (4.00)", ""]
    assert "| toy | nncf | fails |  |  |" in found["peers"]


def test_a_race_runs_networks_in_turns_and_marks_those_of_equal_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_race, "SECONDS", 0.001)
    turns: list[str] = []

    def entrant(name: str, *runtimes: str) -> _race.Entrant:
        return {one: {1: lambda: lambda images: turns.append(name) or images} for one in runtimes}

    networks = {"fp32": entrant("fp32", "ONNX Runtime", "OpenVINO"), "int8": entrant("int8", "OpenVINO")}
    row = _race.race(networks, torch.zeros(2, 1, 4, 4), "fp32")
    column = "OpenVINO, 1 thread, batch 1"
    assert set(row["milliseconds"]["int8"]) == {column, column.replace("batch 1", "batch 32")}
    dense, small = (row["milliseconds"][name][column] for name in ("fp32", "int8"))
    assert row["times_as_fast"]["int8"][column] == dense / small
    assert turns[-2:] == ["fp32", "int8"]
    ends = {"fp32": [1.0, 2.0], "int8": [1.5, 2.5]}
    row = {**row, "quartiles_ms": {name: dict.fromkeys(some, ends[name]) for name, some in row["milliseconds"].items()}}
    text = _race.table({**row, "waited": 0.2, "measured": "today"})
    assert [line.count("\N{ALMOST EQUAL TO}") for line in text.splitlines()[2:4]] == [0, 2]
    assert "today; \N{ALMOST EQUAL TO} quartiles overlap with those of fp32; the machine was busy: 20 %" in text


def test_students_are_timed_in_turns_and_without_an_onnx_form_in_pytorch_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def predictor(model: nn.Module, _: torch.Tensor) -> nn.Module:
        if isinstance(model, nn.Flatten):
            raise ExportError("no")
        return model

    shape = {"input": {"channels": 1, "height": 4, "width": 4}}
    made = {"plain": Artifact(nn.Identity(), about=shape), "odd": Artifact(nn.Flatten(), about=shape)}
    monkeypatch.setattr(students, "open_artifact", lambda file: made[file.name])
    monkeypatch.setattr(students.latency, "predictor", predictor)
    found = students.times({name: tmp_path / name for name in made})
    assert (found["odd"]["onnx_ms"], found["odd"]["onnx_quartiles_ms"]) == (None, None)
    plain = found["plain"]
    for way in ("pytorch", "onnx"):
        for median, (lower, upper) in zip(plain[f"{way}_ms"], plain[f"{way}_quartiles_ms"], strict=True):
            assert 0 < lower <= median <= upper


def test_the_best_method_is_first() -> None:
    about = {"val": 70.0, "best": 71.0, "params": 100, "macs": 2000, "measured": "today"}
    rows = [
        {
            "budget": "",
            "method": name,
            "seed": seed,
            "test": test,
            "epoch_seconds": [4.0, 5.0, 9.0],
            "peak_mb": 900 + seed,
        }
        | about
        for name, test in (("kd", 75.0), ("at", 80.0))
        for seed in range(2)
    ]
    found = methods.tables([*rows, rows[0] | {"budget": "--epochs=30"}])
    assert [*found] == ["methods", "methods --epochs=30"]
    table = found["methods"]
    first, second = [cells(line) for line in table.splitlines()[2:4]]
    assert (first[0], second[0]) == ("at", "kd")
    assert first[3:8] == ["80.00 ± 0.00", "70.00 ± 0.00", "71.00 ± 0.00", "5.0", "901"]


def test_a_method_is_marked_whose_gain_is_more_than_twice_its_deviation() -> None:
    about = {"budget": "", "val": 70.0, "best": 71.0, "epoch_seconds": [], "peak_mb": 9, "params": 1, "macs": 2}
    tests = {"alone": (76.0, 77.0, 78.0), "dkd": (78.0, 79.5, 80.0), "kd": (78.0, 77.5, 78.0), "ft": (75.0,)}
    rows = [
        {**about, "method": method, "seed": seed, "test": test, "measured": "today"}
        for method, some in tests.items()
        for seed, test in enumerate(some)
    ]
    rows.append({**about, "method": "at", "test": {"mean": 87.0, "stdev": 0.1}, "measured": "today"})
    found = {line[0]: line[1:3] for line in map(cells, methods.tables(rows)["methods"].splitlines()[2:-2])}
    assert found == {
        "alone": ["", ""],
        "dkd": ["smaller", "+2.17 ± 0.29 *"],
        "kd": ["paper", "+0.83 ± 1.04"],
        "ft": ["smaller", "-1.00"],
        "at": ["paper", "+10.00"],  # its seeds are not known one by one
    }


def test_a_student_without_an_onnx_form_has_no_milliseconds_there() -> None:
    about = {"recipe": "igcnet", "longer": 1, "measured": "today"}
    trained = {**about, "seed": 0, "params": 10, "macs": 200, "alone": 75.0, "taught": 81.5}
    timed = {**about, "batches": [1, 32], "pytorch_ms": [5.0, 103.25], "onnx_ms": None}
    found = students.tables([trained, timed, trained | {"longer": 5, "taught": 82.0}])
    assert "| igcnet | 10 | 200 | 75.00 | 81.50 | 5.00 / 103.25 | none |" in found["students"]
    assert "| igcnet | 10 | 200 | 75.00 | 82.00 |  |  |" in found["students 5 times as long"]


def test_more_threads_are_compared_with_fewer() -> None:
    ways = ["dense", "blocked", *map(str, kernels.DENSITIES)]
    about = {"model": dict.fromkeys(ways, 2.0), "wins_below": "never", "useful": 0.5, "measured": "today"}
    rows = [
        {"layer": "conv", "threads": threads, "milliseconds": dict.fromkeys(ways, 8.0 / threads)}
        | {"times_as_fast": dict.fromkeys(ways, 1.0), "workspace_bytes": 0, "im2col_bytes": 9}
        | about
        for threads in (1, 4)
    ]
    found = kernels.tables(rows)
    assert "| conv | 4.00 | 4.00 | 4.00 |" in found["kernels 1 to 4"]


def test_the_epoch_that_is_as_good_as_training_from_scratch() -> None:
    def training(way: str, *curve: float) -> dict[str, Any]:
        seconds = [10.0 * epoch for epoch in range(1, len(curve) + 1)]
        named = {"images": 4000, "way": way, "epochs": len(curve), "seed": 0}
        return named | {"accuracy": list(curve), "seconds": seconds, "test": curve[-1], "measured": "today"}

    (table,) = blocks.tables([training("scratch", 0.5, 0.7, 0.8), training("kd", 0.6, 0.85)]).values()
    kd = cells(next(line for line in table.splitlines() if line.startswith("| kd")))
    assert kd[1:] == ["2", "20", "85.00", "85.00", "2 (20)"]
