import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from distill.artifact.step import Step
from distill.measure import latency
from distill.models import cost


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3))


def images(batch: int = 2, channels: int = 1, size: int = 8) -> torch.Tensor:
    return torch.randn(batch, channels, size, size)


def test_params_by_hand():
    assert cost.params(net()) == (4 * 9 + 4) + (4 + 4) + (144 * 3 + 3)


def test_shared_params_count_once():
    layer = nn.Linear(5, 5, bias=False)
    assert cost.params(nn.Sequential(layer, layer)) == 25


def test_macs_by_hand():
    assert cost.macs(net(), images()) == 4 * 9 * 6 * 6 + 144 * 3


@given(
    groups=st.sampled_from([1, 2, 4]), kernel=st.sampled_from([1, 3]), stride=st.integers(1, 2), batch=st.integers(1, 3)
)
@settings(max_examples=20, deadline=None)
def test_macs_of_a_convolution_are_one_per_output_value_and_weight_it_sees(groups, kernel, stride, batch):
    layer = nn.Conv2d(4, 8, kernel, stride, groups=groups)
    inputs = images(batch, channels=4)
    outputs = layer(inputs)[0]
    assert cost.macs(layer, inputs) == outputs.numel() * layer.weight[0].numel()


def test_factorising_a_pointwise_convolution_saves_the_macs_it_should():
    dense, factors = nn.Conv2d(16, 16, 1), nn.Sequential(nn.Conv2d(16, 2, 1, bias=False), nn.Conv2d(2, 16, 1))
    inputs = images(channels=16)
    assert cost.macs(dense, inputs) == 4 * cost.macs(factors, inputs)


def test_macs_leave_the_model_as_it_was():
    model = net().train()
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cost.macs(model, images())
    assert [module.training for module in model] == [True, True, False, True, True]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_network_is_timed_at_each_batch_size_with_quartiles_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = net().train()
    race = latency.round_robin({"net": latency.predictor(model, images())}, images(3), (1, 32), seconds=0.05)
    timings = race.timings["net"]
    assert list(timings) == ["batch1", "batch32"]
    assert 0 < timings["batch1"].median < timings["batch32"].median
    for timing in timings.values():
        assert timing.quartiles == (timing.p25, timing.p75)
        assert timing.p25 <= timing.median <= timing.p75
        assert timing.runs >= latency.ROUNDS
    assert model.training
    assert not list(tmp_path.iterdir())


def test_networks_are_timed_in_turns() -> None:
    calls: list[str] = []

    def network(name: str, seconds: float) -> Callable[[torch.Tensor], torch.Tensor]:
        def run(images: torch.Tensor) -> torch.Tensor:
            calls.append(name)
            time.sleep(seconds)
            return images

        return run

    race = latency.round_robin({"slow": network("slow", 0.02), "fast": network("fast", 0.001)}, images(), (1,), 0.05)
    assert set(calls[::2]) == {"slow"}
    assert set(calls[1::2]) == {"fast"}
    slow, fast = (race.timings[name]["batch1"] for name in ("slow", "fast"))
    assert slow.runs == fast.runs >= latency.ROUNDS
    assert slow.median > fast.median
    assert race.waited > 0.5  # a process that sleeps does not compute


def test_each_network_is_timed_on_its_own_images() -> None:
    seen: dict[str, set[torch.Size]] = {"small": set(), "large": set()}
    runs = {name: lambda batch, name=name: seen[name].add(batch.shape) or batch for name in seen}
    latency.round_robin(runs, {"small": images(size=4), "large": images(3, size=6)}, (1, 5), 0.001)
    assert seen == {name: {(batch, 1, size, size) for batch in (1, 5)} for name, size in (("small", 4), ("large", 6))}


@pytest.mark.parametrize(
    ("other", "same"),
    [((1.0, 2.0), True), ((2.0, 3.0), True), ((0.1, 1.0), True), ((2.1, 3.0), False), ((0, 0.9), False)],
)
def test_speeds_whose_quartiles_overlap_are_the_same(other: tuple[float, float], same: bool) -> None:
    assert latency.same_speed((1.0, 2.0), other) == latency.same_speed(other, (1.0, 2.0)) == same


def test_a_step_survives_json():
    step = Step("compress/1-svd", 10, 200, 3000, {"val/accuracy": 0.5}, {"batch1": 0.25}, 1.5)
    assert Step.from_json(json.loads(json.dumps(step.to_json()))) == step
