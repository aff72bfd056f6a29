"""The command line as a user meets it: one clear line, the right exit code, no traceback."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from distill.__main__ import main
from distill.cli.terminal import guarded, recipe_arguments, train
from distill.errors import ArtifactError, TrainingError


def test_without_arguments_it_lists_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert train([]) == 0
    shown = capsys.readouterr().out
    assert "quickstart" in shown
    assert "Handwritten digits" in shown
    assert "recipe=NAME" in shown


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_explains(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train([flag]) == 0
    assert "key.path=value" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["recipe=quickstrat"], "unknown recipe 'quickstrat'. Did you mean 'quickstart'?"),
        (["recipe=smoke", "student.widht=1"], "Did you mean one of: 'width'"),
        (["quickstart"], "'quickstart' names 0 recipes: write recipe=NAME"),
        (["recipe=smoke", "recipe=quickstart"], "names 2 recipes"),
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


def failing(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (TrainingError("diverged"), 1, "error: diverged\n"),
        (ArtifactError("cut\nshort"), 2, "error: cut short\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/tmp/x", None, "runs/x"),
            1,
            "error: No space left on device: runs/x; make room or choose output=FOLDER, finished steps are kept\n",
        ),
        (KeyboardInterrupt(), 130, "error: stopped; the same command goes on from the last checkpoint\n"),
        (ZeroDivisionError("by 0"), 1, "error: unexpected ZeroDivisionError: by 0 (--debug shows where)\n"),
    ],
)
def test_what_ends_a_run(error: BaseException, code: int, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(failing(error), debug=False) == code
    assert capsys.readouterr().err == shown


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    guarded(failing(TrainingError("diverged")), debug=True)
    assert "Traceback" in capsys.readouterr().err


def test_a_read_only_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert train(["recipe=smoke", f"output={tmp_path / 'file'}"]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_the_order_of_arguments_does_not_matter() -> None:
    assert recipe_arguments(["seed=3", "recipe=smoke", "data.limit=9"]) == ("smoke", ["seed=3", "data.limit=9"])


@pytest.mark.parametrize("kind", ["recipes", "losses", "students", "hooks", "codecs", "data", "exports"])
def test_list(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", kind]) == 0
    expected = {"recipes": "smoke", "losses": "dkd", "students": "resnet8x4", "hooks": "svd", "codecs": "ans"}
    assert expected.get(kind, "") in capsys.readouterr().out


def test_networks_are_listed_with_their_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "students"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, *counts in (("lenet5", "431,080", "2.3M at 28"), ("mobilenet_v1", "4,231,976", "568.7M at 224")):
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
