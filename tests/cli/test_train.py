"""The command line as a user meets it: one clear line, the right exit code, no traceback."""

from pathlib import Path

import pytest
from rich.console import Console

from distill.cli.arguments import recipe_arguments
from distill.cli.train import train


def test_without_arguments_it_lists_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert train([]) == 0
    shown = capsys.readouterr().out
    assert "quickstart" in shown
    assert "Handwritten digits" in shown
    assert "recipe=NAME [key.path=value ...] [--debug]" in shown


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_explains(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train([flag]) == 0
    assert "key.path=value" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["recipe=quickstrat"], "unknown recipe 'quickstrat'. Did you mean 'quickstart'?"),
        (["recipe=smoke", "student.widht=1"], "unknown key 'widht'. Did you mean 'width'"),
        (["quickstart"], "'quickstart' names 0 recipes: write recipe=NAME"),
        (["recipe=smoke", "recipe=quickstart"], "names 2 recipes"),
        (["recipe=smoke", "seed=1", "seed=2"], "'seed' is set 2 times"),
        (
            ["recipe=smoke", "tracking.project=a #b"],
            "'tracking.project=a #b': YAML takes what follows ' #' for a comment; put the value",
        ),
        (["recipe=fashion_mnist/methods/kdd"], "Did you mean 'fashion_mnist/methods/kd"),
        (["recipe=smoke", "--fast"], "'--fast' is not of the form key.path=value"),
        (["recipe=smoke", "stages.distill.losses.at.student=[stage9,stage3]"], "no module 'stage9'"),
        (["recipe=smoke", "stages.distill.losses.at.student=[fc,stage3]"], "loss 'at' does not fit"),
        (
            ["recipe=smoke", "student={name: kd_shufflenet_v1, num_classes: 7}"],
            "the student 'kd_shufflenet_v1' outputs 7 classes",
        ),
        (["recipe=smoke", "data={name: image_folder, root: nowhere}"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert train([*arguments, f"output={tmp_path / 'runs'}"] if "recipe=smoke" in arguments else arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert complaint in error
    assert not (tmp_path / "runs").exists()


def test_a_read_only_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert train(["recipe=smoke", f"output={tmp_path / 'file'}"]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_the_order_of_arguments_does_not_matter() -> None:
    assert recipe_arguments(["seed=3", "recipe=smoke", "data.limit=9"]) == ("smoke", ["seed=3", "data.limit=9"])


def test_an_unknown_recipe_shows_the_nearest_ones_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(["recipe=zzz"]) == 2
    error = capsys.readouterr().err
    assert len(error) < 400
    assert error.count("', '") == 4


@pytest.mark.parametrize("width", [80, 120])
def test_help_fits_the_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("distill.cli.train.console", Console(width=width, markup=False, highlight=False))
    assert train([]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= width
