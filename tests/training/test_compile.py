"""Compiled networks compute what the others do, in one piece that is compiled once."""

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from distill.data.digits import Digits
from distill.errors import RecipeError
from distill.models.adapter import adapt
from distill.models.taps import Taps
from distill.recipe.schema import Optimizer, Schedule, Stage
from distill.tasks.classification import Classification
from distill.training import compile as compiled
from distill.training.distiller import Distiller
from distill.training.fit import fit
from tests.nets import TEN_CLASSES, ConvNet, Forked
from tests.training.test_distiller import HINTS, SETTINGS, without_seconds

PATHS = ("stage1", "stage2", "")


@pytest.fixture(autouse=True)
def as_without_tests() -> Iterator[None]:
    """Not one piece with the checks of shapes between."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def counted(paths: tuple[str, ...] = PATHS, model: ConvNet | None = None) -> tuple[Taps, CompileCounter]:
    """A tapped network whose graphs are counted and then run as they are; a second graph is refused."""
    torch.compiler.reset()
    taps, counter = Taps(model or ConvNet(), paths), CompileCounter()
    taps.compile(backend=counter, dynamic=False, fullgraph=True)
    return taps, counter


def images(size: int = 16) -> Tensor:
    return torch.randn(4, 1, size, size).contiguous(memory_format=torch.channels_last)


def test_auxiliary_outputs_come_out_of_the_same_graph() -> None:
    torch.compiler.reset()
    taps, counter = Taps(adapt(Forked(), auxiliary={"aux": 0.3}), ["body"]), CompileCounter()
    batch = images()
    _, expected = taps(batch)
    taps.compile(backend=counter, dynamic=False, fullgraph=True)
    _, features = taps(batch)
    assert list(features) == ["body", "aux"]
    assert counter.frame_count == 1
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_one_graph_serves_every_step(precision: torch.dtype) -> None:
    taps, counter = counted()
    taps.to(memory_format=torch.channels_last)
    for _ in range(3):
        with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
            output, features = taps(images())
        output.sum().backward()
        with torch.inference_mode():
            copy.deepcopy(taps.model).eval()(images())  # validation runs the network itself
    assert list(features) == list(PATHS)
    assert counter.frame_count == 1


def test_compiled_features_and_gradients_are_the_same() -> None:
    taps, _ = counted()
    eager = Taps(copy.deepcopy(taps.model), PATHS)
    inputs = images()
    for tapped in (taps, eager):
        _, features = tapped(inputs)
        torch.stack([feature.square().mean() for feature in features.values()]).sum().backward()
    for ours, theirs in zip(taps.model.parameters(), eager.model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(taps(inputs), eager(inputs))


def test_the_code_of_other_taps_is_not_taken_for_ones_own() -> None:
    first, counter = counted(("stage1",))
    second = Taps(first.model, ("stage2",))
    second.compile(backend=counter, dynamic=False)
    inputs = images()
    assert list(first(inputs)[1]) == ["stage1"]
    _, features = second(inputs)
    torch.testing.assert_close(features, {"stage2": first.model.stage2(first.model.stage1(inputs))})


def test_a_compiled_network_stays_an_ordinary_one() -> None:
    taps, _ = counted()
    taps(images())
    model = taps.model
    assert not any(module._forward_hooks for module in model.modules())
    assert model.state_dict().keys() == ConvNet().state_dict().keys()
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    inputs = images()
    assert torch.equal(again.eval()(inputs), model.eval()(inputs))


def trained(folder: Path, **settings: Any) -> list[dict[str, float]]:
    torch.manual_seed(0)
    data = Digits(0, limit=200, batch_size=64)
    module = Distiller(
        ConvNet(width=2),
        ConvNet(),
        Classification(TEN_CLASSES),
        Stage(epochs=2, losses=HINTS),
        optimizer=Optimizer(),
        schedule=Schedule(),
        example=data.calibration(8)[0],
        injectable={},
        channels_last=True,
        **settings,
    )
    return fit(module, data, folder, title="student", settings=SETTINGS)[-1]


def test_a_compiled_stage_trains_as_another_does(tmp_path: Path) -> None:
    curves = [trained(tmp_path / str(switch), compiled=switch) for switch in (False, True)]
    for eager, ours in zip(*map(without_seconds, curves), strict=True):
        assert ours == pytest.approx(eager, rel=1e-3, abs=1e-3)


def test_a_machine_without_a_compiler_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nmore")

    monkeypatch.setattr(torch, "compile", fails)
    compiled.require_compiler.cache_clear()
    with pytest.raises(RecipeError, match="'compile' needs a C.. compiler .*No working C.. compiler found.*; install"):
        compiled.compile_networks([Taps(ConvNet(), PATHS)])
