"""Blocks are left out while a network trains; what is left of them afterwards is their expectation."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

import students
from distill.artifact import open_artifact
from distill.errors import RecipeError
from distill.pipeline.run import run
from distill.recipe.loading import load
from distill.training.stochastic_depth import StochasticDepth
from tests.nets import ConvNet, settled

NETWORKS: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "resnet20": (students.resnet20, 9),
    "resnet20 A": (partial(students.resnet20, shortcut="A"), 9),
    "wrn_16_1": (students.wrn_16_1, 6),
    "mobilenet_v2": (partial(students.mobilenet_v2, width=0.5, small_images=True), 10),
    "kd_shufflenet_v1": (students.kd_shufflenet_v1, 13),
    "shift_resnet20": (students.shift_resnet20, 9),
    "fe_net": (partial(students.fe_net, width=0.25, small_images=True), 2 + 3 + 3 + 3 + 2),
    "lccl_resnet20": (students.lccl_resnet20, 9),
    "torchvision's resnet18": (torchvision.models.resnet18, 8),
    "torchvision's resnet50": (torchvision.models.resnet50, 16),
}


def made(name: str, survival: float = 0.5) -> tuple[nn.Module, StochasticDepth, Tensor]:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 16, 16)
    model = settled(NETWORKS[name][0](), images)
    return model, StochasticDepth(model, images, survival), images


@pytest.mark.parametrize("name", NETWORKS)
def test_a_dropped_block_computes_no_convolution_and_gets_no_gradient(name: str) -> None:
    model, depth, images = made(name)
    assert len(depth.blocks) == NETWORKS[name][1]
    macs = convolution_macs(model, images)
    with depth.drawn() as dropped:
        assert 0 < len(dropped) < len(depth.blocks)
        left = convolution_macs(model, images)
        model.train()(images).square().sum().backward()
    idle = {id(model.get_submodule(path)) for block in dropped for path in block.branch}
    assert left == {conv: count for conv, count in macs.items() if id(conv) not in idle}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            assert (parameter.grad is None) == (id(module) in idle)
    assert convolution_macs(model.eval(), images) == macs


def convolution_macs(model: nn.Module, images: Tensor) -> dict[nn.Module, int]:
    """How many values each convolution computes, seen where torch computes them."""
    counts: dict[nn.Module, int] = {}
    convolutions = {id(module.weight): module for module in model.modules() if isinstance(module, nn.Conv2d)}
    computed = torch.nn.functional.conv2d

    def count(x: Tensor, weight: Tensor, *settings: object) -> Tensor:
        output = computed(x, weight, *settings)
        counts[convolutions[id(weight)]] = output.numel()
        return output

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch.nn.functional, "conv2d", count)
        model(images)
    return counts


@torch.no_grad()
def test_of_a_dropped_block_the_shortcut_is_left() -> None:
    model, depth, images = made("resnet20")
    depth.survival = torch.zeros(9)
    block, x = model.layer2[0], torch.randn(2, 16, 16, 16)
    inputs: list[Tensor] = []
    block.register_forward_pre_hook(lambda block, args: inputs.append(args[0]))
    outputs: list[Tensor] = []
    block.register_forward_hook(lambda block, args, output: outputs.append(output))
    with depth.drawn():
        model(images)
    assert torch.equal(outputs[0], block.downsample(inputs[0]).relu())
    assert not torch.equal(block(x), block.downsample(x).relu())


@torch.no_grad()
def test_what_is_kept_adds_branches_times_their_probability() -> None:
    model, depth, images = made("resnet20", survival=0.3)
    blocks = [block for stage in (model.layer1, model.layer2, model.layer3) for block in stage]
    x = model.relu(model.bn1(model.conv1(images)))
    for number, block in enumerate(blocks, start=1):
        branch = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(x)))))
        x = (block.downsample(x) + (1 - number / 9 * 0.7) * branch).relu()
    expected = model.fc(x.mean((2, 3)))
    before = copy.deepcopy(model.state_dict())
    folded = depth.folded()
    torch.testing.assert_close(folded(images), expected, rtol=1e-5, atol=1e-5)
    assert folded.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["resnet20", "lccl_resnet20", "wrn_16_1", "kd_shufflenet_v1"])
@torch.no_grad()
def test_with_inverted_scaling_kept_branches_are_divided_in_training_alone(name: str) -> None:
    model, depth, images = made(name)
    inverted = StochasticDepth(model, images, 0.5, scaling="inverted")
    before = model(images)
    with inverted.drawn() as dropped:
        found = model(images)
    assert 0 < len(dropped) < len(depth.blocks)
    shares = torch.tensor([0.0 if block in dropped else 1 / p for block, p in zip(depth.blocks, depth.survival)])
    torch.testing.assert_close(found, depth.folded(shares)(images), rtol=1e-3, atol=1e-5)
    assert torch.equal(model(images), before)
    assert torch.equal(inverted.folded()(images), before)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_certain_block_is_kept_as_it_is(name: str) -> None:
    model, depth, images = made(name, survival=1.0)
    assert depth.draw() == []
    assert torch.equal(depth.folded()(images), model(images))


def test_40_of_54_blocks_are_there_on_average() -> None:
    torch.manual_seed(0)
    depth = StochasticDepth(students.resnet110().eval(), torch.randn(1, 3, 4, 4), 0.5)
    assert depth.survival.sum().item() == pytest.approx((3 * 54 - 1) / 4)
    assert depth.survival[0].item() == pytest.approx(1 - 0.5 / 54)
    assert depth.survival[-1].item() == 0.5
    active = sum(54 - len(depth.draw()) for _ in range(4000)) / 4000
    assert active == pytest.approx(40.25, abs=0.2)


class Plus(nn.Module):
    """x + end(conv(x)), then a classifier."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.fc, self.end = nn.Conv2d(3, 3, 1), nn.Linear(3, 10), end

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((x + self.end(self.conv(x))).mean((2, 3)))


@torch.no_grad()
def test_with_inverted_scaling_a_kept_branch_is_that_of_torchvision() -> None:
    torch.manual_seed(0)
    network, x = Plus(nn.Identity()).eval(), torch.randn(2, 3, 4, 4)
    depth = StochasticDepth(network, x, 0.4, scaling="inverted")
    theirs = [torchvision.ops.stochastic_depth(network.conv(x), 1 - 0.4, "batch") for _ in range(20)]
    ours = []
    for _ in range(20):
        with depth.drawn():
            ours.append(network(x))
    expected = {bool(branch.any()): network.fc((x + branch).mean((2, 3))) for branch in theirs}
    assert expected.keys() == {False, True}
    kept = [torch.allclose(output, expected[True]) for output in ours]
    dropped = [torch.allclose(output, expected[False]) for output in ours]
    assert any(kept)
    assert [not one for one in kept] == dropped


def test_a_branch_that_weights_cannot_scale_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"the branch of '' by changing the weights of 'conv', but sigmoid follows"):
        StochasticDepth(Plus(torch.sigmoid).eval(), torch.randn(2, 3, 4, 4), 0.5)


def test_a_branch_that_takes_no_zeros_is_refused() -> None:
    network = Plus(nn.Identity()).eval()
    network.conv = nn.Sequential(nn.Conv2d(3, 6, 1), nn.GLU(dim=1))
    with pytest.raises(RecipeError, match="but glu follows"):
        StochasticDepth(network, torch.randn(2, 3, 4, 4), 0.5)


@pytest.mark.parametrize("model", [ConvNet(channels=3), students.shufflenet_v2(width=0.5, small_images=True)])
def test_a_network_without_residual_blocks_is_refused(model: nn.Module) -> None:
    with pytest.raises(RecipeError, match=f"residual blocks out, but {type(model).__name__} has none"):
        StochasticDepth(model.eval(), torch.randn(2, 3, 16, 16), 0.5)


RECIPE = """
task: {name: classification}
data: {name: digits, limit: 120, batch_size: 30}
student: {name: resnet8x4}
stages: {plain: {epochs: 1, stochastic_depth: 0.5}}
tracking: {mode: disabled}
trainer: {accelerator: cpu, devices: 1}
"""


@pytest.mark.parametrize("written", ["0.5", "{survival: 0.5, scaling: inverted}"])
def test_a_stage_leaves_the_usual_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    draws: list[int] = []
    draw = StochasticDepth.draw
    monkeypatch.setattr(StochasticDepth, "draw", lambda self: draws.append(1) or draw(self))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    changes = [f"output={tmp_path / 'runs'}", f"stages.plain.stochastic_depth={written}"]
    result = run(load(str(tmp_path / "recipe.yaml"), changes))
    artifact = open_artifact(result.folder / "student.safetensors")
    assert len(draws) == 2 + 3  # steps of the dry run, and batches of 108 images to train on
    assert artifact.plans == ()
    assert artifact.model.state_dict().keys() == students.resnet8x4(channels=1).state_dict().keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["student.name=shufflenet_v2"], "at stages.plain: stochastic_depth leaves residual blocks out"),
        (["compile=true"], "at stages.plain: compiled code leaves no blocks out"),
        (["stages.plain.stochastic_depth=0"], "stochastic_depth is 0.0, but a probability is above 0"),
        (["stages.plain.stochastic_depth=1.5"], "stochastic_depth is 1.5, but a probability is above 0"),
        (["stages.plain.stochastic_depth={survival: -1}"], "stochastic_depth is -1.0, but a probability is above 0"),
        (["stages.plain.stochastic_depth=true"], "stochastic_depth is True, but is a probability, such as 0.5, or a"),
        (["stages.plain.stochastic_depth={scaling: paper}"], r"stochastic_depth is \{'scaling': 'paper'\}, but is a"),
        (["stages.plain.stochastic_depth={survival: 1, p: 1}"], "'p': 1}, but is a probability, such as 0.5, or a sec"),
        (
            ["stages.plain.stochastic_depth={survival: 0.5, scaling: late}"],
            "'scaling': 'late'}, but is a probability, such as 0.5, or a section, .*where scaling is paper or inverted",
        ),
        (
            ["compress={prune: {finetune: {epochs: 1, stochastic_depth: 0.5}}}"],
            "fine-tuning keeps what a hook stored: remove 'stochastic_depth'",
        ),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_trained(tmp_path: Path, changes: list[str], message: str) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    with pytest.raises(RecipeError, match=message):
        run(load(str(tmp_path / "recipe.yaml"), [f"output={tmp_path / 'runs'}", *changes]))
