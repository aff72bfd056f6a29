"""Pages show what was measured: their tables are made from the measurements in the repository."""

from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import (
    _results,
    caffe,
    codecs,
    conditional,
    runtime,
    stages,
    tables,
    tasks,
    unlabelled,
)
from benchmarks.faults import _tables as faults
from distill.data import DataInfo


def row(
    network: str, epochs: int, seed: int, distance: float, *, cached: bool = True, seconds: float = 10
) -> dict[str, Any]:
    about = {"recipe": "toy", "overrides": "", "network": network, "epochs": epochs, "cached": cached, "seed": seed}
    found = {"monitor": "epe", "mode": "min", "unit": "px", "test": {"epe": distance}, "curve": [5.0, 4.0, distance]}
    cost = {"cpu_seconds": seconds, "filling_seconds": 0.0, "params": 100, "macs": 1000}
    return about | found | cost


ROWS = [
    row("teacher", 3, 0, 1.0),
    *(row("alone", 10, seed, 3.0 + seed / 10) for seed in range(3)),
    *(row("distilled", 10, seed, 2.0 + seed / 10, seconds=10) for seed in range(3)),
    row("distilled", 3, 0, 4.0, cached=False, seconds=6),
    *(row("alone", 20, seed, 1.5, seconds=20) for seed in range(2)),
]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_pages_agree_with_the_measurements() -> None:
    assert not list(tables.differing()), "run `python -m benchmarks.tables`"


def test_a_smaller_distance_is_a_gain() -> None:
    table = tasks.tables(ROWS)["tasks toy"]
    steps = cells(next(line for line in table.splitlines() if line.startswith("| equal steps")))
    assert steps[1:8] == ["3", "10", "10", "10", "10", "3.10 ± 0.10", "2.10 ± 0.10"]
    assert steps[8] == "+1.00 ± 0.00 *"
    assert steps[9] == "0.90 ± 0.10"


def test_without_a_longer_training_there_is_no_row_of_it() -> None:
    assert "times the steps" not in tasks.tables(ROWS)["tasks toy"]
    long = [row(network, 30, 0, 1.0, seconds=30) for network in ("alone", "distilled")]
    assert "| 3 times the steps | 1 | 30 | 30 |" in tasks.tables([*ROWS, *long])["tasks toy"]


def test_seconds_of_a_live_teacher_are_epochs_of_the_student_alone() -> None:
    table = tasks.tables(ROWS)["tasks toy"]
    live = cells(next(line for line in table.splitlines() if "teacher live" in line))
    assert live[1:4] == ["2", "20", "10"]
    assert live[8].startswith("-0.55")


def test_what_is_not_yet_timed_has_no_table() -> None:
    assert tasks.tables(ROWS[:2]) == {}


def test_a_measurement_done_again_replaces_the_one_before(tmp_path: Any) -> None:
    file = tmp_path / "results" / "some.jsonl"
    assert _results.read(file, ("name",)) == []
    for value in (1, 2):
        _results.append(file, {"name": "a", "value": value})
    _results.append(file, {"name": "b", "value": 3})
    assert [row["value"] for row in _results.read(file, ("name",))] == [2, 3]


def test_a_page_without_the_table_is_refused() -> None:
    page = "# A\n<!-- results: one -->\nold\n<!-- end -->\nrest\n"
    assert (
        _results.with_table(page, "one", "| new |") == "# A\n<!-- results: one -->\n\n| new |\n\n<!-- end -->\nrest\n"
    )
    with pytest.raises(ValueError, match="no '<!-- results: two -->'"):
        _results.with_table(page, "two", "")


def test_a_sentence_may_stand_within_a_line() -> None:
    page = "| a | <!-- results: one -->old<!-- end --> |\n| b | <!-- results: two --><!-- end --> |\n"
    made = "| a | <!-- results: one -->new<!-- end --> |\n| b | <!-- results: two --><!-- end --> |\n"
    assert _results.with_table(page, "one", "new") == made


def stage(name: str, accuracy: float, size: int, milliseconds: float, **about: Any) -> dict[str, Any]:
    found = {"recipe": "toy", "overrides": "", "seed": 0, "stage": name, "test": {"accuracy": accuracy, "epe": 2}}
    cost = {"bytes": size, "params": 100, "macs": 1000, "effective_params": 50, "effective_macs": 400}
    speed = {"milliseconds": {"batch1": milliseconds}, "times_as_fast": {"batch1": 0.3 / milliseconds}}
    units = {"accuracy": "%", "epe": "px"}
    return {**found, **cost, **speed, "units": units, "measured": "today", **about}


def test_stages_are_compared_with_what_was_trained() -> None:
    rows = [stage("teacher", 0.99, 8000, 0.6), stage("trained", 0.98, 4000, 0.3), stage("int8", 0.975, 1000, 0.1)]
    rows += [stage("trained", 0.96, 4400, 0.3, seed=1), stage("int8", 0.955, 1100, 0.1, seed=1)]
    found = stages.tables([*rows, stage("trained", 0.5, 9, 9, overrides="data.limit=10")])
    assert [*found] == ["stages toy", "stages toy data.limit=10"]
    table = found["stages toy"]
    *_, teacher, _, last = [cells(line) for line in table.splitlines() if line.startswith("| ")]
    assert last == [
        *("int8", "2", "96.50 ± 1.41 %", "2.000 ± 0.000 px", "1,050 (4.0 times smaller)", "1,000 (1.0 times fewer)"),
        *("400 (2.5 times fewer)", "0.100 (3.00 times as fast)"),
    ]
    assert teacher[:4] == ["teacher", "1", "99.00 %", "2.000 px"]


def test_stages_that_are_compared_with_the_teacher_leave_its_own_cells_empty() -> None:
    """As SSIM of repainted pictures, which the teacher is the reference of."""
    trained = stage("trained", 0.98, 4000, 0.3)
    rows = [stage("teacher", 0.99, 8000, 0.6), {**trained, "test": trained["test"] | {"ssim": 0.8}}]
    (table,) = stages.tables(rows).values()
    head, _, *lines = [cells(line) for line in table.splitlines() if line.startswith("| ")]
    place = head.index("test ssim")
    assert [line[place] for line in lines] == ["-", "0.800"]


def test_gates_are_judged_beside_the_same_network_without() -> None:
    times = {f"batch{size}": {"all": 2.0, "kept": 9.0 + size} for size in conditional.BATCHES}
    rows = [
        {"longer": 5, "seed": seed, "without": 80.0, "gated": 79.0 + seed, "saved": 20.0, "milliseconds": times}
        for seed in range(2)
    ]
    (table,) = conditional.tables([row | {"measured": "today"} for row in rows]).values()
    *_, last = [cells(line) for line in table.splitlines() if line.startswith("| ")]
    assert last[:6] == ["30", "2", "80.00 ± 0.00", "79.50 ± 0.71", "-0.50 ± 0.71", "20.00 ± 0.00"]
    assert last[6:] == ["2.00 / 10.00", "2.00 / 41.00"]


def test_students_without_labels_stand_beside_their_teacher_and_bare_pixels() -> None:
    def network(name: str, seed: int, probe: float, agreement: float | None = None) -> dict[str, Any]:
        about = {"recipe": "toy", "overrides": "", "network": name, "seed": seed, "measured": "today, here"}
        test = {} if agreement is None else {"agreement": agreement, "top5_agreement": 0.75, "kl": 1.5}
        costs = {} if agreement is None else {"params": 1000, "macs": 2000, "cpu_seconds": 300.0}
        return {**about, "test": test, "probe": {"accuracy": probe, "C": 0.01}, **costs}

    distilled = [network("distilled", seed, 0.85 + seed / 100, 0.5) for seed in range(2)]
    table = unlabelled.tables([network("pixels", 0, 0.8), *distilled, distilled[0] | {"overrides": "a=1"}])
    (name, text), *others = table.items()
    assert (name, others) == ("unlabelled toy", [])
    assert (
        "| student, distilled | 2 | 1,000 | 2,000 | 50.00 ± 0.00 | 75.00 ± 0.00 | 1.50 ± 0.00 | 85.50 ± 0.71 |" in text
    )
    assert "| bare pixels, no network | 1 | - | - | - | - | - | 80.00 |" in text
    assert "takes 300 CPU seconds" in text


def test_a_probe_reads_what_the_classifier_reads() -> None:
    body, images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.rand(2, 1, 28, 28)
    info = DataInfo(3, (32, 32), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    inputs = unlabelled.enlarged((255 * images).round().byte(), info)
    assert inputs.shape == (2, 3, 32, 32)
    black = unlabelled.enlarged(torch.zeros(1, 1, 28, 28, dtype=torch.uint8), info)
    torch.testing.assert_close(black, torch.full((1, 3, 32, 32), -2.0))
    torch.testing.assert_close(unlabelled.features(nn.Sequential(body, nn.Linear(4, 9)), inputs), body(inputs))


def test_networks_are_timed_in_turns_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "SECONDS", 0.001)
    turns = []
    runs = {name: lambda batch, name=name: turns.append(name) or batch for name in ("dense", "small")}
    found = stages.race(runs, torch.zeros(2, 1, 4, 4), "dense")
    assert found["dense"]["times_as_fast"] == {"batch1": 1.0, "batch32": 1.0}
    small, dense = (found[name]["milliseconds"]["batch1"] for name in ("small", "dense"))
    assert found["small"]["times_as_fast"]["batch1"] == dense / small
    lower, upper = found["small"]["quartiles_ms"]["batch1"]
    assert 0 < lower <= small <= upper
    assert 0 <= found["small"]["waited"] <= 1
    assert turns == ["dense", "small"] * (len(turns) // 2)


def test_stages_of_equal_speed_are_marked_and_a_busy_machine_is_said() -> None:
    def timed(name: str, milliseconds: float, lower: float, upper: float, **about: Any) -> dict[str, Any]:
        own = {"quartiles_ms": {"batch1": [lower, upper]}, "waited": 0.0}
        return stage(name, 0.9, 100, milliseconds, **{**own, **about})

    rows = [timed("trained", 0.3, 0.2, 0.4), timed("svd", 0.25, 0.2, 0.3), timed("int8", 0.1, 0.05, 0.15)]
    (table,) = stages.tables(rows).values()
    *speeds, _, _ = [cells(line)[-1].partition(" ")[0] for line in table.splitlines()[2:]]
    assert speeds == ["0.300", "\N{ALMOST EQUAL TO}0.250", "0.100"]
    assert table.endswith("today; \N{ALMOST EQUAL TO} quartiles overlap with those of trained")
    seconds = [timed(row["stage"], 0.3, 0.1, 0.5, seed=1, waited=0.35) for row in rows]
    (table,) = stages.tables([*rows, *seconds]).values()
    assert table.endswith("the machine was busy: 35 % of the time went to other processes")
    older = stage("svd", 0.9, 100, 0.3, seed=1)  # without quartiles
    (table,) = stages.tables([*rows, older]).values()
    assert "overlap" not in table


def test_cases_of_damage_and_killed_runs_are_counted() -> None:
    outcomes = {"raw": {"right": 1, "named": 1200, "else": 2}}
    measured = {"seed": 3, "measured": "today, here"}
    artifacts = {"subject": "artifacts", "outcomes": outcomes, "wrong": 2, "slowest": 1.04, "valid_mb": 7, "peak_mb": 8}
    kills = {"subject": "kills", "count": 20, "kills": 26, "wrong": 1, "left": 0}
    text = faults.tables([artifacts | measured, kills | measured])["faults"]
    assert "| artifacts | raw | 1,203 | 1 | 1,200 | 2 |" in text
    assert "slowest case took 1.0 s; cases took at most 8 MB, the whole valid run 7 MB; seed 3, today, here" in text
    assert "of 20 runs, killed 26 times at random moments and started again, 19 ended with" in text
    assert faults.tables([]) == {}


@pytest.mark.parametrize(
    ("epochs", "views", "expected"),
    [([5.0, 3.0, 3.0], 0, (3.0, 0.0)), ([9.0, 7.0, 4.0, 4.0], 2, (4.0, 8.0)), ([9.0, 8.0, 8.0], 3, (8.0, 0.0))],
)
def test_every_view_of_a_cache_is_filled_once(epochs: list[float], views: int, expected: tuple[float, float]) -> None:
    assert tasks.seconds(epochs, views) == expected


def coder(name: str, bits: float, **about: Any) -> dict[str, Any]:
    setting = {"network": "toy", "pruned": 0.8, "bits": 5, "coder": name, "bits_per_weight": bits}
    return {**setting, "over_entropy": -0.01, "encode_mbps": 2.0, "decode_mbps": 150.0, "measured": "today", **about}


def test_codecs_are_compared_with_each_way_to_store_indices() -> None:
    entropy = {"network": "toy", "pruned": 0.8, "bits": 5, "values": "as they are", "zeros": 0.8, "entropy": 1.26}
    rows = [entropy | {"measured": "today"}, coder("context", 1.0), coder("nncodec", 1.1), coder("zstd", 1.5)]
    (name, table), *others = codecs.tables(rows).items()
    assert (name, others) == ("codecs peers", [])
    assert "| toy | 80 %, 5 | 1.260 | **1.000** | 1.100 | - | - | 1.500 | - | -1.0 % | 2.0 / 150 |" in table
    indices = [coder(base, bits) for base, bits in zip(codecs.BASES.values(), (2.0, 2.5, 3.0), strict=True)]
    table = codecs.tables([*rows, *indices])["codecs toy 0.8:5"]
    assert "| as they are | 80.0 % | 1.260 |" in table
    assert "| context | 1.000 | 2.00 | 2.50 | 3.00 | 2.0 / 150 |" in table


def test_what_is_in_the_file_is_not_measured_again(tmp_path: Any) -> None:
    file, measured = tmp_path / "some.jsonl", []

    def measure() -> dict[str, Any]:
        measured.append(1)
        return {"value": len(measured)}

    for _ in range(2):
        row = _results.kept(file, {"name": "a", "seed": 0}, measure)
        assert (row["name"], row["value"]) == ("a", 1)
    _results.append(file, {"name": "a", "seed": 0, "value": 7})
    assert _results.kept(file, {"name": "a", "seed": 0}, measure)["value"] == 7
    assert _results.kept(file, {"name": "a", "seed": 1}, measure)["value"] == 2


def test_what_becomes_of_networks_from_caffe() -> None:
    sizes = {"caffemodel_bytes": 4000, "both_bytes": 5000, "artifact_bytes": 1000, "measured": "today"}
    about = {"recipe": "8 bits", "scenes": 20, "calibration": 4}
    detect = {"network": "detect", "found_before": 10, "still_found": 9}
    found = caffe.tables([detect | about | sizes, {"network": "sr", "psnr": 31.25} | about | sizes])
    assert "| 8 bits | 4,000 | 1,000 | 4.00 | 5.00 | 10 of 20 | 90.0 % |" in found["caffe detect"]
    assert "| 8 bits | 4,000 | 1,000 | 4.00 | 5.00 | 20 | 31.2 dB |" in found["caffe sr"]


def test_networks_without_lookups_leave_their_cell_empty() -> None:
    times = {way: {"batch1": 1.0, "batch32": 20.04} for way in ("numpy", "onnx", "pytorch")}
    sizes = {"bytes": 1234, "graph_bytes": 100, "load_ms": 4.6, "difference": 3e-7, "milliseconds": times}
    about = {"network": "lenet5", "weights": "float32", "size": 28, "versions": "NumPy 2", "measured": "today"}
    (table,) = runtime.tables([about | sizes]).values()
    line = next(line for line in table.splitlines() if line.startswith("| lenet5"))
    assert cells(line)[1:7] == ["28 x 28", "float32", "1,234", "100", "5", "3e-07"]
    assert cells(line)[7:] == ["1 / 20", "", "1 / 20", "1 / 20"]


def test_ways_to_run_are_marked_that_are_as_fast_as_onnx_runtime() -> None:
    runs = {way: lambda batch: batch for way in ("numpy", "onnx", "pytorch")}
    timed = runtime.times(runs, torch.zeros(2, 1, 4, 4))
    assert timed["milliseconds"].keys() == timed["quartiles_ms"].keys() == runs.keys()
    quartiles = {"numpy": [0.9, 1.1], "onnx": [1.0, 1.2], "pytorch": [1.3, 1.4]}
    timed["milliseconds"] = {way: {"batch1": 1.0} for way in runs}
    timed["quartiles_ms"] = {way: {"batch1": ends} for way, ends in quartiles.items()}
    sizes = {"bytes": 1234, "graph_bytes": 100, "load_ms": 4.6, "difference": 3e-7}
    about = {"network": "lenet5", "weights": "float32", "size": 28, "versions": "NumPy 2", "measured": "today"}
    (table,) = runtime.tables([about | sizes | timed | {"waited": 0.0}]).values()
    line = next(line for line in table.splitlines() if line.startswith("| lenet5"))
    assert cells(line)[7:] == ["\N{ALMOST EQUAL TO}1", "", "1", "1"]
    assert table.endswith("NumPy 2; \N{ALMOST EQUAL TO} quartiles overlap with those of ONNX Runtime")
