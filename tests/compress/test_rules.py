"""The rules for hooks are checked where hooks are called: a simple hook keeps them without a line of its own."""

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from distill.artifact import Artifact, store
from distill.artifact.sparse import Sparse
from distill.compress._contract import call_hook
from distill.compress.encode import encode
from distill.compress.low_rank.svd import svd
from distill.compress.quantization.int8 import int8
from distill.compress.quantization.quantize import quantize
from distill.errors import RecipeError, TrainingError
from tests.compress import nets


def half_of_the_weights(artifact: Artifact) -> Artifact:
    """All that a hook needs: what it does."""
    weight = artifact.model.kernel.weight.detach()
    return store(artifact, {"kernel.weight": Sparse.of(weight, weight.abs() > weight.abs().median())})


def called(hook: Callable[[Artifact], object], artifact: Artifact) -> Artifact:
    return call_hook("mine", lambda: hook(artifact), artifact)


def test_a_simple_hook_keeps_all_rules(caplog: pytest.LogCaptureFixture) -> None:
    artifact = nets.artifact()
    with caplog.at_level(logging.WARNING):
        assert called(half_of_the_weights, artifact).nbytes() < artifact.nbytes()
    assert not caplog.records


def test_an_encoded_artifact_is_refused_for_it() -> None:
    with pytest.raises(RecipeError, match="'mine' after 'encode' would undo it: put 'encode' last in compress"):
        called(half_of_the_weights, encode(quantize(nets.artifact())))
    on_integers = int8(nets.artifact(), nets.calibration(), nets.anything)
    with pytest.raises(RecipeError, match="'mine' after 'int8' would take its weights off their codes"):
        called(half_of_the_weights, on_integers)


@pytest.mark.parametrize("name", ["point.weight", "norm.bias"])
def test_values_that_are_not_finite_are_named_for_it(name: str) -> None:
    artifact = nets.artifact()
    artifact.model.get_parameter(name).data.view(-1)[3] = float("nan")
    with pytest.raises(TrainingError, match=rf"mine: 1 of \d+ values of '{name}' are not finite"):
        called(half_of_the_weights, artifact)


def no_artifact(artifact: Artifact) -> object:
    return artifact.model


def in_place(artifact: Artifact) -> Artifact:
    artifact.model.kernel.weight.data[0, 0, 0, 0] += 1
    return artifact


def training(artifact: Artifact) -> Artifact:
    return replace(artifact, model=artifact.copy_model().train())


def without_network(artifact: Artifact) -> Artifact:
    return Artifact(artifact.copy_model())


def other_values(artifact: Artifact) -> Artifact:
    kept = half_of_the_weights(artifact)
    return replace(kept, model=artifact.copy_model())


def no_parameter(artifact: Artifact) -> Artifact:
    done = half_of_the_weights(artifact)
    return replace(done, stored={"kernel": done.stored["kernel.weight"]})


def infinite(artifact: Artifact) -> Artifact:
    model = artifact.copy_model()
    torch.nn.init.constant_(model.head.weight, float("inf"))
    return replace(artifact, model=model)


@pytest.mark.parametrize(
    ("hook", "why"),
    [
        (no_artifact, "hook 'mine' returned a Mixed: a hook returns an Artifact"),
        (in_place, "hook 'mine' changed the artifact that it was given"),
        (training, "hook 'mine' returned a network in training mode"),
        (without_network, "hook 'mine' lost how the network is built"),
        (other_values, r"hook 'mine' stores 'kernel\.weight' in a form that decodes to other values"),
        (no_parameter, "hook 'mine' stores 'kernel', but the network has no parameter of that name"),
        (infinite, r"mine: 120 of 120 values of 'head\.weight' are not finite"),
    ],
)
def test_a_broken_rule_is_named(hook: Callable[[Artifact], object], why: str) -> None:
    with pytest.raises((RecipeError, TrainingError), match=why):
        called(hook, nets.artifact())


@pytest.mark.parametrize(
    ("last", "kind", "why"),
    [
        (nn.Linear(6, 0), torch.float32, r"'1\.weight' is empty \(.*\): take its layer out"),
        (nn.Linear(6, 3), torch.float16, r"'0\.weight' is float16 \(.*\): convert the network to float32"),
        (nn.Linear(6, 3), torch.float64, r"'0\.weight' is float64 \(.*\): convert the network to float32"),
    ],
)
def test_where_a_hook_cannot_compute_is_said(last: nn.Module, kind: torch.dtype, why: str) -> None:
    artifact = Artifact(nn.Sequential(nn.Linear(4, 6), last).to(kind).eval())
    with pytest.raises(RecipeError, match=f"hook 'mine' fails where {why}"):
        called(lambda given: svd(given, nets.anything, nets.calibration(4), max_error=0.5), artifact)


def test_a_fault_of_a_hook_stays_its_own() -> None:
    with pytest.raises(ZeroDivisionError):
        called(lambda given: 1 // 0, nets.artifact())


def test_state_that_no_file_can_hold_is_named() -> None:
    class Counting(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"steps": 3}

    artifact = Artifact(nn.Sequential(Counting(2, 2)).eval())
    with pytest.raises(RecipeError, match=r"mine: no file can hold '0\._extra_state', a dict: make a buffer of it"):
        called(half_of_the_weights, artifact)


def test_a_file_that_is_not_smaller_is_said(caplog: pytest.LogCaptureFixture) -> None:
    artifact = nets.artifact()
    weight = artifact.model.kernel.weight.detach()
    with caplog.at_level(logging.WARNING):
        called(lambda given: given, artifact)
        called(lambda given: store(given, {"kernel.weight": Sparse.of(weight, weight != 0)}), artifact)
    assert "mine: nothing to do for this network" in caplog.text
    assert "mine: the file is not smaller, " in caplog.text
