"""What is particular to each family: shortcuts, shuffles, splits, shares of the cost, weights from elsewhere."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import students
from distill.models.taps import Taps
from students.resnet_cifar import PadChannels
from students.shufflenet import V1_CHANNELS, ChannelShuffle, Unit

TORCHVISION = [
    (students.resnet18, {}, torchvision.models.resnet18),
    (students.resnet34, {}, torchvision.models.resnet34),
    (students.resnet50, {}, torchvision.models.resnet50),
    (students.squeezenet1_0, {}, torchvision.models.squeezenet1_0),
    (students.squeezenet1_1, {}, torchvision.models.squeezenet1_1),
    (students.mobilenet_v2, {}, torchvision.models.mobilenet_v2),
    (students.shufflenet_v2, {"width": 0.5}, torchvision.models.shufflenet_v2_x0_5),
    (students.shufflenet_v2, {"width": 1.0}, torchvision.models.shufflenet_v2_x1_0),
    (students.shufflenet_v2, {"width": 1.5}, torchvision.models.shufflenet_v2_x1_5),
    (students.shufflenet_v2, {"width": 2.0}, torchvision.models.shufflenet_v2_x2_0),
]


@pytest.mark.parametrize(("build", "settings", "original"), TORCHVISION)
def test_torchvision_weights_load_and_compute_the_same(
    build: Callable[..., nn.Module], settings: dict[str, Any], original: Callable[..., nn.Module]
) -> None:
    theirs, ours = original().eval(), build(**settings).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


def test_option_a_has_shortcuts_without_parameters() -> None:
    for shortcut, count in (("A", 0), ("B", 2)):
        names = [name for name, _ in students.resnet20(shortcut=shortcut).named_parameters()]
        assert len({name.split(".")[0] for name in names if "downsample" in name}) == count


def test_option_a_keeps_every_second_pixel_and_adds_channels_of_zeros() -> None:
    images = torch.randn(2, 16, 8, 8)
    shortcut = PadChannels(16, stride=2)(images)
    assert shortcut.shape == (2, 32, 4, 4)
    for channel in range(16):
        assert torch.equal(shortcut[:, channel], images[:, channel, 0::2, 0::2])
    assert shortcut[:, 16:].count_nonzero() == 0


@pytest.mark.parametrize("build", [students.resnet8x4, students.kd_shufflenet_v1])
def test_what_comes_before_the_last_relu_can_be_tapped(build: Callable[..., nn.Module]) -> None:
    network = build()
    for stage in network.stages:
        block = network.get_submodule(stage)[-1]
        inputs = torch.randn(2, first_convolution(block).in_channels, 8, 8)
        captured: list[Tensor] = []
        with block.preactivation.register_forward_hook(
            lambda module, args, output, captured=captured: captured.append(output)
        ):
            output = block(inputs)
        assert captured[0].min() < 0
        assert torch.equal(captured[0].relu(), output)


def test_mobilenet_v1_computes_almost_all_in_its_1x1_convolutions() -> None:
    with torch.device("meta"):
        macs = convolution_macs(students.mobilenet_v1().eval(), torch.empty(1, 3, 224, 224))
    stem, *layers = macs.values()
    pointwise = sum(count for conv, count in macs.items() if conv.kernel_size == (1, 1))
    total = stem + sum(layers) + 1024 * 1000
    assert (pointwise, total) == (539_492_352, 568_740_352)
    depthwise = total - pointwise - stem - 1024 * 1000
    assert depthwise / total == pytest.approx(0.0306, abs=5e-5)


def test_mobilenet_v2_has_ten_identity_shortcuts() -> None:
    network = students.mobilenet_v2()
    blocks = [module for module in network.features if hasattr(module, "use_res_connect")]
    assert len(blocks) == 17
    assert sum(block.use_res_connect for block in blocks) == 10


def test_kd_mobilenet_v2_has_ten_identity_shortcuts_too() -> None:
    blocks = [module for module in students.kd_mobilenet_v2().modules() if hasattr(module, "skips")]
    assert len(blocks) == 17
    assert sum(block.skips for block in blocks) == 10


@pytest.mark.parametrize("groups", [2, 3, 4, 8])
def test_shufflenet_v1_shuffles_so_that_every_group_hears_every_other(groups: int) -> None:
    width = V1_CHANNELS[groups]
    unit = Unit(width, width, groups, stride=1, groups_in=groups).eval()
    assert reach(unit.branch, width, groups).all()
    unit.branch[1] = nn.Identity()
    assert torch.equal(reach(unit.branch, width, groups), torch.eye(groups, dtype=torch.bool))


def reach(branch: nn.Module, width: int, groups: int) -> Tensor:
    """Whether input group j has an influence on output group i: (groups, groups)."""
    images = torch.randn(4, width, 5, 5, requires_grad=True)
    rows = []
    for output in branch(images).chunk(groups, dim=1):
        (gradient,) = torch.autograd.grad(output.sum(), images, retain_graph=True)
        rows.append([bool(part.any()) for part in gradient.chunk(groups, dim=1)])
    return torch.tensor(rows)


@pytest.mark.parametrize(("groups", "width"), [(g, w) for g in (1, 2, 3, 4, 8) for w in (0.5, 1.0, 1.5, 2.0)])
def test_shufflenet_v1_is_defined_for_every_width_and_number_of_groups(groups: int, width: float) -> None:
    with torch.device("meta"):
        network = students.shufflenet_v1(groups=groups, width=width).eval()
        assert network(torch.empty(1, 3, 64, 64)).shape == (1, 1000)
    for unit in (module for module in network.modules() if isinstance(module, Unit)):
        middle, outputs = unit.branch[2][0].out_channels, first_convolution(unit).in_channels
        if unit.pool is None:
            assert outputs / 4 <= middle < outputs / 4 + groups


@torch.no_grad()
def test_shufflenet_v2_passes_half_of_the_channels_on_unchanged() -> None:
    unit = students.shufflenet_v2(width=0.5).stage2[1].eval()
    images = torch.randn(2, 48, 7, 7)
    even, odd = unit(images)[:, 0::2], unit(images)[:, 1::2]
    assert torch.equal(even, images[:, :24])
    assert not torch.equal(odd, images[:, 24:])


@pytest.mark.parametrize(
    ("build", "shapes"),
    [
        (students.kd_shufflenet_v1, [(240, 16), (480, 8), (960, 4)]),
        (students.kd_shufflenet_v2, [(116, 16), (232, 8), (464, 4)]),
        (students.kd_mobilenet_v2, [(12, 16), (16, 8), (48, 4), (160, 2)]),
        (students.resnet32x4, [(64, 32), (128, 16), (256, 8)]),
        (students.wrn_40_2, [(32, 32), (64, 16), (128, 8)]),
        (students.vgg13, [(128, 16), (256, 8), (512, 4), (512, 4)]),
        (partial(students.resnet50, small_images=True), [(256, 32), (512, 16), (1024, 8), (2048, 4)]),
    ],
)
def test_stages_are_those_that_distillation_papers_compare(
    build: Callable[..., nn.Module], shapes: list[tuple[int, int]]
) -> None:
    with torch.device("meta"):
        network = build().eval()
        _, features = Taps(network, network.stages)(torch.empty(1, 3, 32, 32))
    assert [(feature.shape[1], feature.shape[2]) for feature in features.values()] == shapes


@pytest.mark.parametrize(("build", "weights"), [(students.lenet_300_100, 266_200), (students.lenet5, 430_500)])
def test_lenets_have_the_weights_that_deep_compression_prunes(build: Callable[..., nn.Module], weights: int) -> None:
    assert sum(parameter.numel() for parameter in build().parameters() if parameter.ndim > 1) == weights


@pytest.mark.parametrize(
    ("build", "settings", "message"),
    [
        (students.shufflenet_v2, {"width": 0.3}, "width is 0.3, but must be one of 0.5, 1.0, 1.5, 2.0"),
        (students.shufflenet_v1, {"width": 0.3}, "width is 0.3, but must be one of 0.5, 1.0, 1.5, 2.0"),
        (students.shufflenet_v1, {"groups": 5}, "groups is 5, but must be one of 1, 2, 3, 4, 8"),
        (students.resnet20, {"shortcut": "C"}, "shortcut is C, but must be one of A, B"),
        (students.mobilenet_v1, {"width": 0.0}, "width is 0.0, but must be a number above 0"),
        (students.mobilenet_v2, {"width": -1.0}, "width is -1.0, but must be a number above 0"),
    ],
)
def test_settings_without_a_network_are_refused(
    build: Callable[..., nn.Module], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_convolutions_start_with_the_variance_of_he_et_al() -> None:
    weight = students.resnet20().layer3[1].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_changed_stem_of_squeezenet_keeps_the_size_of_activations(channels: int) -> None:
    weight = students.squeezenet1_0(small_images=True, channels=channels).features[0].weight
    assert weight.std().item() == pytest.approx((2 / (channels * 9)) ** 0.5, rel=0.1)


def first_convolution(network: nn.Module) -> nn.Conv2d:
    return next(module for module in network.modules() if isinstance(module, nn.Conv2d))


def convolution_macs(network: nn.Module, images: Tensor) -> dict[nn.Conv2d, int]:
    """Counted by hand: outputs times the inputs that each of them sees."""
    macs: dict[nn.Conv2d, int] = {}

    def count(conv: nn.Conv2d, args: tuple[Tensor, ...], output: Tensor) -> None:
        macs[conv] = output.numel() * conv.weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    network(images)
    return macs


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("groups", "shape"), [(2, (2, 12, 5, 4)), (3, (2, 12, 5, 4)), (3, (2, 12, 1, 1))])
def test_a_shuffle_is_torchs_in_the_layout_it_was_given(
    groups: int, shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    images = torch.randn(shape).contiguous(memory_format=layout)
    shuffled = ChannelShuffle(groups)(images)
    assert torch.equal(shuffled, nn.ChannelShuffle(groups)(images))
    assert shuffled.is_contiguous(memory_format=layout)
