"""``python -m distill COMMAND``: what each prints, and how it is called."""

import re
from pathlib import Path

import pytest

from distill import __version__
from distill.__main__ import main
from distill.cli._network_costs import count, recorded
from distill.cli.commands.plan import duration
from distill.cli.main import commands
from distill.registry import loss
from students import student


@pytest.mark.parametrize("kind", ["recipes", "losses", "students", "hooks", "codecs", "tasks", "data", "exports"])
def test_list(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", kind]) == 0
    expected = {"recipes": "smoke", "losses": "dkd", "students": "resnet8x4", "hooks": "svd", "codecs": "ans"}
    assert expected.get(kind, "") in capsys.readouterr().out


def test_networks_are_listed_with_their_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "students"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, *counts in (
        ("lenet5", "431,080", "2.3M MACs at 28x28"),
        ("mobilenet_v1", "4,231,976", "568.7M MACs at 224x224"),
    ):
        line = next(line for line in lines if line.startswith(f"{name} "))
        assert all(count in line for count in counts)


def test_show_prints_a_recipe_with_everything_filled_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "recipe=smoke", "seed=3"]) == 0
    shown = capsys.readouterr().out
    assert "seed: 3" in shown
    assert "temperature: 4" in shown
    assert "weight_decay: 0.0005" in shown


def test_overrides_may_follow_options(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}
    monkeypatch.setattr("distill.sweep.sweep", lambda file, **settings: seen.update(settings, file=file))
    assert main(["sweep", "file.yaml", "--jobs", "2", "seed=1"]) == 0
    assert (seen["jobs"], seen["overrides"]) == (2, ["seed=1"])


def test_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["sweep", "file.yaml", "--jobz", "2"])
    assert "unrecognized arguments: --jobz 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["predict", "a.safetensors", "a.png", "--draw"], ["export", "a.safetensors", "--output"]]
)
def test_a_folder_has_a_name(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*command, ""])
    assert "an empty name is no folder" in capsys.readouterr().err


def test_the_recorded_costs_are_those_of_the_networks() -> None:
    """``python -m benchmarks.network_costs`` records them again."""
    assert recorded() == {name: count(name) for name in student.names()}


def test_a_list_shows_types_defaults_ranges_and_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "losses"]) == 0
    shown = capsys.readouterr().out
    assert "memory: bank | queue = bank" in shown
    assert "arXiv:1503.02531" in shown
    assert [line for line in shown.splitlines() if not line.startswith(" ")] == loss.names()


@pytest.mark.parametrize("name", commands())
def test_every_command_has_a_help_text(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    assert commands()[name].split(maxsplit=1)[0] in capsys.readouterr().out


def test_an_optional_argument_is_shown_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["evaluate", "--help"])
    assert re.search(r"\[data.KEY=VALUE \.\.\.\]", capsys.readouterr().out)


def test_a_misspelt_command_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evalute"]) == 2
    assert "unknown command 'evalute'. Did you mean 'evaluate'?" in capsys.readouterr().err


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"distill {__version__}\n"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, ""), (0.0, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (83, "1:23"), (3723, "1:02:03")]
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_plan_shows_every_step(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["plan", "recipe=smoke", f"output={tmp_path / 'runs'}"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()[1:-1]] == [
        *("teacher", "baseline", "student/hint", "student/distill"),
        *("compress/1-svd", "compress/2-quantize", "compress/3-encode", "export/onnx"),
    ]
    assert "together about" in shown
    assert not (tmp_path / "runs").exists()
