"""Parameters and multiply-accumulates, against published counts and those of other implementations."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from students import student

SMALL, A = {"small_images": True}, {"shortcut": "A"}
NO_BACKBONE = {"weights_backbone": None}
C10, C100 = {"num_classes": 10}, {"num_classes": 100}

# network, settings, image size, parameters, millions of MACs
CIFAR = [
    ("resnet20", A, 32, 269_722, 40.55),
    ("resnet32", A, 32, 464_154, 68.86),
    ("resnet44", A, 32, 658_586, 97.17),
    ("resnet56", A, 32, 853_018, 125.49),
    ("resnet110", A, 32, 1_727_962, 252.89),
    ("resnet20", {}, 32, 272_474, None),
    ("resnet32", {}, 32, 466_906, None),
    ("resnet44", {}, 32, 661_338, None),
    ("resnet56", {}, 32, 855_770, None),
    ("resnet110", {}, 32, 1_730_714, None),
    ("resnet20", C100, 32, 278_324, None),
    ("resnet32", C100, 32, 472_756, None),
    ("resnet44", C100, 32, 667_188, None),
    ("resnet56", C100, 32, 861_620, None),
    ("resnet110", C100, 32, 1_736_564, None),
    ("resnet8x4", C100, 32, 1_233_540, 177.1),
    ("resnet32x4", C100, 32, 7_433_860, 1_083.0),
    ("wrn_16_1", C100, 32, 180_916, None),
    ("wrn_16_2", C100, 32, 703_284, 101.1),
    ("wrn_40_1", C100, 32, 569_780, None),
    ("wrn_40_2", C100, 32, 2_255_156, 327.6),
    ("vgg8", C100, 32, 3_965_028, 96.2),
    ("vgg13", C100, 32, 9_462_180, 284.9),
    ("resnet50", SMALL | C100, 32, 23_705_252, 1_298.0),
    ("kd_mobilenet_v2", {}, 32, 812_836, 6.52),
    ("kd_shufflenet_v1", {}, 32, 949_258, 38.7),
    ("kd_shufflenet_v2", {}, 32, 1_355_528, 44.5),
]

LENET = [
    ("lenet_300_100", {}, 28, 266_610, 0.2662),
    ("lenet5", {}, 28, 431_080, 2.293),
    # By hand: 64 * 300 + 300 * 100 + 100 * 10 weights; 20 * 25 at 8x8, 50 * 500 at 4x4, 200 * 500 and 500 * 10 once.
    ("lenet_300_100", {"input_size": 8}, 8, 50_610, 0.0502),
    ("lenet5", {"input_size": 8}, 8, 131_080, 0.537),
    ("lenet5", {"input_size": 32}, 32, 656_080, None),
]

GREY = {"channels": 1}
CHARACTERS = [
    ("hccr_cnn9", GREY, 96, 10_861_971, 593.964032),
    ("character_cnn", GREY, 32, 2_839_947, 16.876),
    ("character_cnn", GREY | {"num_classes": 500}, 32, 1_170_132, 15.2),
    ("character_cnn", GREY | {"num_classes": 500, "width": 0.25}, 32, 122_028, 1.06),
]

RESNET = [
    ("resnet18", {}, 224, 11_689_512, None),
    ("resnet34", {}, 224, 21_797_672, None),
    ("resnet50", {}, 224, 25_557_032, None),
]

SQUEEZENET = [
    ("squeezenet1_0", {}, 224, 1_248_424, 818.92),
    ("squeezenet1_1", {}, 224, 1_235_496, 349.15),
    ("squeezenet1_0", SMALL | C10, 32, 729_034, 52.5),
    ("squeezenet1_0", SMALL | C100, 32, 775_204, 53.3),
    ("squeezenet1_1", SMALL | C10, 32, 727_626, 23.5),
    ("squeezenet1_1", SMALL | C100, 32, 773_796, 24.2),
]

MOBILENET_V1 = [
    ("mobilenet_v1", {"width": width}, size, params, macs)
    for width, params, by_size in [
        (1.0, 4_231_976, {224: 568.74, 192: 418.12, 160: 290.68, 128: 186.40}),
        (0.75, 2_585_560, {224: 325.40, 192: 239.27, 160: 166.40, 128: 106.77}),
        (0.5, 1_331_592, {224: 149.50, 192: 109.97, 160: 76.52, 128: 49.16}),
        (0.25, 470_072, {224: 41.03, 192: 30.21, 160: 21.06, 128: 13.57}),
    ]
    for size, macs in by_size.items()
] + [
    ("mobilenet_v1", SMALL | C10, 32, 3_217_226, 46.35),
    ("mobilenet_v1", SMALL | C100, 32, 3_309_476, None),
    ("mobilenet_v1", SMALL | C10 | {"width": 0.5}, 32, 823_722, 12.17),
]

MOBILENET_V2 = [
    ("mobilenet_v2", {}, 224, 3_504_872, 300.77),
    ("mobilenet_v2", {"width": 1.4}, 224, 6_108_776, 582.20),
    ("mobilenet_v2", {"width": 0.75}, 224, 2_636_424, 209.07),
    ("mobilenet_v2", {"width": 0.5}, 224, 1_968_680, 97.13),
    ("mobilenet_v2", {"width": 0.35}, 224, 1_677_128, 59.29),
    ("mobilenet_v2", SMALL | C10, 32, 2_236_682, 87.98),
    ("mobilenet_v2", SMALL | C100, 32, 2_351_972, None),
]

# At other widths than 1 the official code has no biases in its classifier: 1000 parameters fewer than here.
SHUFFLENET_V1 = [
    ("shufflenet_v1", {"groups": 1}, 224, 1_531_936, 143.08),
    ("shufflenet_v1", {"groups": 2}, 224, 1_733_848, 140.84),
    ("shufflenet_v1", {"groups": 3}, 224, 1_865_728, 137.46),
    ("shufflenet_v1", {"groups": 4}, 224, 1_968_344, 134.34),
    ("shufflenet_v1", {"groups": 8}, 224, 2_434_768, 138.37),
    ("shufflenet_v1", {"width": 0.5}, 224, 717_324 + 1000, 37.59),
    ("shufflenet_v1", {"width": 1.5}, 224, 3_441_168 + 1000, 292.44),
    ("shufflenet_v1", {"width": 2.0}, 224, 5_449_776 + 1000, 524.05),
    ("shufflenet_v1", {"width": 0.5, "groups": 8}, 224, 1_010_448 + 1000, 40.47),
    ("shufflenet_v1", {"width": 1.5, "groups": 8}, 224, 4_268_952 + 1000, None),
    ("shufflenet_v1", {"width": 2.0, "groups": 8}, 224, 6_521_232 + 1000, 521.94),
]

SHUFFLENET_V2 = [
    ("shufflenet_v2", {"width": 0.5}, 224, 1_366_792, 40.48),
    ("shufflenet_v2", {"width": 1.0}, 224, 2_278_604, 144.91),
    ("shufflenet_v2", {"width": 1.5}, 224, 3_503_624, 295.76),
    ("shufflenet_v2", {"width": 2.0}, 224, 7_393_996, 583.25),
    ("shufflenet_v2", SMALL | C10 | {"width": 0.5}, 32, 352_042, None),
    ("shufflenet_v2", SMALL | C100 | {"width": 0.5}, 32, 444_292, None),
    ("shufflenet_v2", SMALL | C10 | {"width": 1.0}, 32, 1_263_854, 45.0),
    ("shufflenet_v2", SMALL | C100 | {"width": 1.0}, 32, 1_356_104, None),
    ("shufflenet_v2", SMALL | C10 | {"width": 1.5}, 32, 2_488_874, None),
    ("shufflenet_v2", SMALL | C100 | {"width": 1.5}, 32, 2_581_124, None),
    ("shufflenet_v2", SMALL | C10 | {"width": 2.0}, 32, 5_365_486, None),
    ("shufflenet_v2", SMALL | C100 | {"width": 2.0}, 32, 5_549_896, None),
]

SHIFT_RESNET = [
    (f"shift_resnet{depth}", {"expansion": expansion}, 32, params, None)
    for depth, counts in {
        20: {1: 34_906, 3: 95_642, 6: 186_746, 9: 277_850},
        56: {1: 102_106, 3: 294_554, 6: 583_226, 9: 871_898},
        110: {1: 202_906, 3: 592_922, 6: 1_177_946, 9: 1_762_970},
    }.items()
    for expansion, params in counts.items()
] + [
    ("shift_resnet20", {}, 32, 95_642, 16.433792),
    ("shift_resnet56", {"num_classes": 100}, 32, 294_554 + 90 * 65, None),
]

# Counted without the two offsets of each channel that is shifted.
FE_NET = [
    ("fe_net", {"width": 1.0}, 224, 3_524_544 + 2 * 5_344, 299.68),
    ("fe_net", {"width": 1.375}, 224, 5_987_790 + 2 * 7_348, 563.70),
    ("fe_net", {"width": 1.0, "expands": "outputs"}, 224, 3_918_304 + 2 * 5_344, 410.46),
    ("fe_net", {"width": 1.375, "expands": "outputs"}, 224, 6_730_774 + 2 * 7_348, 773.16),
]

IGCNET = [
    ("igcnet", {"depth": 20}, 32, 155_962, None),
    ("igcnet", {"depth": 38}, 32, 317_242, None),
    ("igcnet", {"depth": 62}, 32, 532_282, None),
    ("igcnet", {"depth": 98}, 32, 854_842, None),
    ("igcnet", {"primary": 4, "secondary": 8}, 32, 277_546, None),
    ("igcnet18", {}, 224, 12_251_240, 1_945.0),
    ("igcnet18", {"primary": 16, "secondary": 16}, 224, 13_528_296, 2_266.0),
    ("igcnet18", {"primary": 100, "secondary": 2, "doubles": "primary"}, 224, 8_637_900, 1_265.0),
    ("igcv2", C100 | {"width": 416}, 32, 650_308, None),
    ("igcv2", C100 | {"width": 256}, 32, 400_228, None),
    ("igcv2", C100 | {"width": 144}, 32, 225_172, None),
]

# The MACs of the connections that exist; X-MobileNet with a dense first 1x1 convolution.
GATHERED = {"gathered": True}
XNET = [
    ("x_densenet", GATHERED | {"growth": 24}, 32, 350_218 + 2_016, 144.7),
    ("x_densenet", {"growth": 24, "expander": 1}, 32, 690_346, 288.1),
    ("x_densenet", {"growth": 36, "expander": 1}, 32, 1_542_682, None),
    ("x_densenet", {"growth": 48, "expander": 1}, 32, 2_733_130, None),
    ("x_densenet", {"growth": 60, "expander": 1}, 32, 4_261_690, None),
    ("x_mobilenet", GATHERED | {"expander": 2}, 224, 939_400, 85.27),
    ("x_mobilenet", GATHERED | {"expander": 4}, 224, 743_304, 53.16),
    ("x_mobilenet", GATHERED | {"expander": 8}, 224, 645_256, 37.10),
    ("x_mobilenet", GATHERED | {"expander": 16}, 224, 596_232, 29.07),
]

# MobileNetV2 and 8 scores for each channel at both ends of 17 convolutions.
FLGC = [("flgc_mobilenet_v2", SMALL | C10, 32, 2_236_682 + 8 * 8_640, None)]

# VGG-11 has 132.86 million parameters and 7,609 million MACs; its convolutions 9.218 and 7,485.
LOW_RANK_FILTERS = [
    ("vgg11_low_rank", {"variant": "gmp"}, 224, 32_200_040, 7508.43),
    ("vgg11_low_rank", {"variant": "gmp-lr"}, 224, 26_056_040, 2575.93),
    ("vgg11_low_rank", {"variant": "gmp-lr-2x"}, 224, 37_322_728, 9360.21),
    ("vgg11_low_rank", {"variant": "gmp-lr-join"}, 224, 27_254_760, 3706.29),
    ("vgg11_low_rank", {"variant": "gmp-lr-join-wfull"}, 224, 28_790_760, 4939.42),
    ("vgg11_low_rank", {"variant": "gmp-sf"}, 224, 29_646_824, 5967.02),
    ("nin", {}, 32, 966_986, 222.49),
    ("nin_low_rank", {}, 32, 377_162, 113.96),
]

VERSATILE = [
    ("versatile_resnet50", {}, 224, 19_898_408, 3267.1),
    ("versatile_resnet50", {"versatile_stem": True}, 224, 19_891_352, 3199.66),
    ("versatile_resnet50", {"delta": 1}, 224, 10_985_112, 3251.27),
    ("versatile_resnet50", {"delta": 1, "versatile_stem": True}, 224, 10_976_488, 3166.97),
    ("versatile_vgg16", {}, 224, 53_931_976, 8590.82),
]

LCNN = [
    ("lcnn_alexnet", {}, 224, 165_160_625, 754.73),
    # A dictionary that is too large for every layer leaves torchvision's AlexNet, with other biases.
    ("lcnn_alexnet", {"first": 10**9, "words": 10**9, "linear": 10**9}, 224, 61_100_840 - 9344 + 18_688, 714.19),
]

# The count of milesial/Pytorch-UNet with bilinear enlarging; torchvision's are those of its weights' metadata.
TWO_LEVELS_LESS = {"num_classes": 5, "first_stride": 2, "levels": 3}
SEGMENTATION = [
    ("unet", {"num_classes": 1}, 96, 17_262_977, None),
    # Our own, which docs/tasks/segmentation.md tells.
    ("unet", TWO_LEVELS_LESS | {"width": 16}, 96, 268_837, 67.535),
    ("unet", TWO_LEVELS_LESS | {"width": 6}, 96, 38_177, 9.774),
    ("unet", TWO_LEVELS_LESS | {"width": 8, "separable": True}, 96, 11_645, 3.677),
    ("lraspp_mobilenet_v3_large", NO_BACKBONE, 520, 3_221_538, 2_086),
    ("deeplabv3_mobilenet_v3_large", NO_BACKBONE | {"aux_loss": True}, 520, 11_029_328, 10_452),
    ("fcn_resnet50", NO_BACKBONE | {"aux_loss": True}, 520, 35_322_218, 152_717),
]

# 91 outputs of classes with the background: OpenVINO's table has 6.807 million parameters for SSD on MobileNetV1, the
# paper of MobileNetV2 4.3 million and 0.8 billion MACs for SSDLite. Those of torchvision are in its metadata.
COCO = {"coco": True}
DETECTORS = [
    ("ssd_mobilenet_v1", {"num_classes": 90}, 300, 6_819_839, 1_237),
    ("ssd_mobilenet_v1", {"num_classes": 20}, 300, 5_796_089, 1_148),
    ("ssd_mobilenet_v1", {"num_classes": 90, "separable": True}, 300, 5_217_343, 1_210),
    ("ssd_mobilenet_v1", {"num_classes": 90, "width": 0.5}, 300, 3_935_583, 389.9),
    ("ssd_mobilenet_v2", {"num_classes": 80}, 320, 4_303_925, 785.5),
    ("ssd_mobilenet_v2", {"num_classes": 90}, 320, 4_467_455, None),
    ("ssd_miniature", {"num_classes": 4}, 96, 690_876, 32.4),
    ("ssd_miniature", {"num_classes": 4, "width": 12, "separable": True}, 96, 51_612, 3.15),
    ("ssd_miniature", {"num_classes": 4, "width": 8, "separable": True}, 96, 26_316, 1.73),
    ("ssd300_vgg16", COCO, 300, 35_641_826, 34_858),
    ("ssdlite320_mobilenet_v3_large", COCO, 320, 3_440_060, 583),
    ("retinanet_resnet50_fpn_v2", COCO, 800, 38_198_935, 152_238),
    ("fcos_resnet50_fpn", COCO, 800, 32_269_600, 128_207),
]

STYLE = [
    ("style_net", {}, 256, 1_679_235, 10_078.9),
    ("style_net", {"width": 16}, 256, 424_899, 2_774.5),
    ("style_net", {"width": 16, "blocks": 3}, 256, 276_675, 2_170.6),
    ("light_style_net", {}, 256, 11_443, 123.14),
    ("efficientnet_lite0", {}, 224, 4_652_008, None),
]

OTHERS = IGCNET + XNET + FLGC + LOW_RANK_FILTERS + VERSATILE + LCNN + SHIFT_RESNET + FE_NET
OTHERS += SEGMENTATION + DETECTORS + CHARACTERS + STYLE
ROWS = CIFAR + LENET + RESNET + SQUEEZENET + MOBILENET_V1 + MOBILENET_V2 + SHUFFLENET_V1 + SHUFFLENET_V2 + OTHERS


@pytest.mark.parametrize(("name", "settings", "size", "params", "macs"), ROWS)
def test_counts(name: str, settings: Mapping[str, Any], size: int, params: int, macs: float | None) -> None:
    network = on_meta(name, settings)
    assert sum(parameter.numel() for parameter in network.parameters()) == params
    if macs is not None:
        assert million_macs(network, size, settings.get("channels")) == pytest.approx(macs, rel=1e-3, abs=0.05)


def test_shufflenet_v1_of_half_width_costs_the_published_38_million() -> None:
    network = on_meta("shufflenet_v1", {"groups": 4, "width": 0.5})
    assert million_macs(network, 224) == pytest.approx(38, rel=0.02)


def test_squeezenet_1_1_saves_what_its_authors_say() -> None:
    old, new = (million_macs(on_meta(name, {}), 224) for name in ("squeezenet1_0", "squeezenet1_1"))
    assert old / new == pytest.approx(2.35, abs=0.01)


def on_meta(name: str, settings: Mapping[str, Any]) -> nn.Module:
    with torch.device("meta"):
        return student.find(name)(**settings).eval()


def million_macs(network: nn.Module, size: int, channels: int | None = None) -> float:
    channels = channels or (1 if size in (8, 28) else 3)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.empty(1, channels, size, size, device="meta"))
    return counter.get_total_flops() / 2e6
