"""Benchmarks refuse wrong arguments in one line, and survive files of measurements that a killed process left."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import _results, gpu, methods, seeds, stages, tables, tasks
from distill.console import console
from distill.errors import UserError


@pytest.fixture(autouse=True)
def _console(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks silence the console for good: here it is lent to them."""
    monkeypatch.setattr(console, "quiet", console.quiet)


@pytest.mark.parametrize(
    ("main", "arguments", "said"),
    [
        *((module.main, ["nosuch"], "error: unknown recipe 'nosuch'") for module in (seeds, stages, tasks)),
        (seeds.main, ["smoke", "data.limt=3"], "error: recipe 'smoke' at data: unknown key 'limt'"),
        (gpu.main, ["--device=cpu", "--tiny", "--rows", "nomatch"], "error: --rows nomatch fits no row"),
    ],
)
def test_a_mistake_is_one_line(
    main: Callable[[], None],
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark", *arguments, f"--results={tmp_path / 'some.jsonl'}"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(said)
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (seeds.main, ["smoke", "--seeds=0"]),
        (methods.main, ["--seeds=0"]),
        (tasks.main, ["smoke", "--longer", "0"]),
        (stages.main, ["smoke", "--seeds=some"]),
    ],
)
def test_counts_are_at_least_one(
    main: Callable[[], None],
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert "is no number of at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("check", [True, False])
def test_pages_are_compared_before_they_are_written(
    check: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- results: none -->\nold\n<!-- end -->\n")
    monkeypatch.setattr(tables, "PAGES", (page,))
    monkeypatch.setattr("sys.argv", ["tables", *["--check"] * check])
    if check:
        with pytest.raises(SystemExit) as end:
            tables.main()
        assert end.value.code == 1
    else:
        tables.main()
    assert capsys.readouterr().out == f"{page}\n"
    assert ("old" in page.read_text()) == check


ROWS: list[dict[str, Any]] = [{"name": "a", "value": 1}, {"name": "b", "value": 2}]


def test_a_line_that_is_cut_off_is_said_and_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, whole = tmp_path / "some.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS)
    for length in range(whole.index("\n") + 2, len(whole) - 1):
        file.write_text(whole[:length])
        assert _results.read(file, ("name",)) == ROWS[:1]
        assert capsys.readouterr().err.count("cut off") == 1
        _results.append(file, ROWS[1])
        assert file.read_text() == whole


def test_what_is_added_begins_on_a_line_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text(json.dumps(ROWS[0]))  # whole, but for the end of its line
    assert _results.read(file, ("name",)) == ROWS[:1]
    _results.append(file, ROWS[1], ROWS[0] | {"name": "c"})
    assert file.read_text().count("\n") == 3
    assert [row["name"] for row in _results.read(file, ("name",))] == ["a", "b", "c"]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text(f"\n{json.dumps(ROWS[0])}{json.dumps(ROWS[1])}\n{json.dumps(ROWS[0])}\n")
    with pytest.raises(UserError, match=r"line 2 of .*some\.jsonl is no measurement"):
        _results.read(file, ("name",))


def test_a_seed_is_known_when_all_its_steps_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_: Any) -> Any:
        raise KeyboardInterrupt

    file = tmp_path / "some.jsonl"
    monkeypatch.setattr("sys.argv", ["seeds", "smoke", "--seeds=1", f"--results={file}"])
    (tmp_path / "report.json").write_text('{"latency": {}}')
    done = type("Result", (), {"steps": ["teacher", "student"], "folder": tmp_path})
    monkeypatch.setattr(seeds, "run", lambda _: done)
    monkeypatch.setattr(seeds, "costs", lambda step, _: {"step": step} if step == "teacher" else stopped(step))
    with pytest.raises(SystemExit) as end:
        seeds.main()
    assert end.value.code == 130
    assert not seeds.known(file, "smoke", "", 0)
