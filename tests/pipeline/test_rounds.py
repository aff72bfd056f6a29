"""A hook applied several times, with training after each: how far each time, and what a killed run does again."""

from pathlib import Path

import pytest
import torch

from distill.artifact import Artifact, open_artifact
from distill.artifact.sparse import Sparse
from distill.errors import RecipeError
from distill.pipeline.run import Result, run
from distill.recipe.loading import load

RECIPE = """
task: {name: classification}
data: {name: digits, limit: 200, batch_size: 50}
student: {name: "tests.nets:ConvNet", arguments: {width: 2}}
baseline: false
tracking: {mode: disabled}
trainer: {accelerator: cpu, devices: 1}
stages:
  only: {epochs: 1}
compress:
"""
PRUNE = "  prune: {sparsity: 0.8, saliency: taylor, rounds: 2, finetune: {epochs: 2}}\n"
STEPS = ["compress/1-prune-round1", "compress/1-prune"]
WEIGHTS = 2 * 9 + 4 * 18 + 8 * 36 + 10 * 8


def start(folder: Path, compress: str, stop: tuple[str, int] | None = None) -> tuple[Result, list[tuple[str, int]]]:
    """Run it, or let it be killed after the epoch ``stop``; also the epochs that were trained."""
    file = folder / "rounds.yaml"
    file.write_text(RECIPE + compress)
    epochs: list[tuple[str, int]] = []

    def seen(title: str, epoch: int, metrics: dict[str, float]) -> None:
        epochs.append((title, epoch))
        if stop == (title, epoch):
            raise KeyboardInterrupt

    return run(load(str(file), [f"output={folder / 'runs'}"]), on_epoch=seen), epochs


def artifact(result: Result, step: str) -> Artifact:
    return open_artifact(result.folder / step / "network.safetensors", allow=["tests.nets"])


def kept(artifact: Artifact) -> int:
    return sum(int(form.mask().sum()) for form in artifact.stored.values() if isinstance(form, Sparse))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rounds")


@pytest.fixture(scope="module")
def result(folder: Path) -> Result:
    return start(folder, PRUNE)[0]


def test_every_round_prunes_further_and_is_trained(result: Result) -> None:
    assert [step.step for step in result.steps] == ["student", *STEPS]
    assert [kept(artifact(result, step)) for step in STEPS] == [
        WEIGHTS - round(0.8 * (1 - 0.5**3) * WEIGHTS),
        WEIGHTS - round(0.8 * WEIGHTS),
    ]
    first, last = (artifact(result, step).stored["stage3.0.weight"] for step in (STEPS[0], STEPS[-1]))
    assert (last.mask() <= first.mask()).all()
    history = artifact(result, STEPS[-1]).history
    assert [step.step for step in history] == ["student/only", *STEPS[:-1]]


def test_finished_rounds_are_not_done_again(folder: Path, result: Result) -> None:
    again, epochs = start(folder, PRUNE)
    assert epochs == []
    assert [step.metrics for step in again.steps] == [step.metrics for step in result.steps]


def test_a_killed_round_goes_on_where_it_was(tmp_path: Path, result: Result) -> None:
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, PRUNE, stop=(STEPS[1], 2))
    resumed, epochs = start(tmp_path, PRUNE)
    assert epochs == [(STEPS[1], 2)]
    for mine, other in zip(
        artifact(resumed, STEPS[-1]).model.state_dict().values(),
        artifact(result, STEPS[-1]).model.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(mine, other)


@pytest.mark.parametrize(
    ("compress", "complaint"),
    [
        ("  prune: {rounds: 3}", "rounds without training between them change nothing: add 'finetune'"),
        ("  prune: {rounds: 0}", "rounds is 0, but must be at least 1"),
        (
            "  quantize: {rounds: 2, finetune: {epochs: 1}}",
            "at compress.quantize: 'quantize' goes all the way at once; remove 'rounds'",
        ),
        ("  prune: {pattern: 2:4}", "pattern is '124', but is \"N:M\" in quotes"),
        ("  prune: {}\n  svd: {}", "at compress.svd: 'svd' would fill the zeros of 'stage1.0': put it before 'prune'"),
        ("  prune: {}\n  encode: {}\n  quantize: {}", "at compress.quantize: .*put 'encode' last"),
    ],
)
def test_mistakes_are_named_before_training(compress: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=complaint):
        start(tmp_path, compress)
