"""One small member of each family of torchvision's classifiers, built of torchvision's own classes."""

from functools import partial

import torch
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import FusedMBConvConfig, MBConvConfig
from torchvision.models.regnet import BlockParams
from torchvision.models.swin_transformer import SwinTransformerBlockV2

CLASSES = 5
SIZE = 32


def alexnet() -> nn.Module:
    model = models.alexnet(num_classes=CLASSES)
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier = nn.Sequential(nn.Dropout(), nn.Linear(256, 64), nn.ReLU(inplace=True), nn.Linear(64, CLASSES))
    return model


def resnet() -> nn.Module:
    return models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=CLASSES, width_per_group=64)


def resnext() -> nn.Module:
    return models.ResNet(models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=CLASSES, groups=8, width_per_group=4)


def vgg() -> nn.Module:
    layers = models.vgg.make_layers([16, "M", 32, "M", 32, "M", 64, "M", 64, "M"], batch_norm=False)
    return _vgg(layers)


def vgg_bn() -> nn.Module:
    layers = models.vgg.make_layers([16, "M", 32, "M", 32, "M", 64, "M", 64, "M"], batch_norm=True)
    return _vgg(layers)


def _vgg(layers: nn.Sequential) -> nn.Module:
    model = models.VGG(layers, num_classes=CLASSES)
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier = nn.Sequential(nn.Linear(64, 64), nn.ReLU(True), nn.Dropout(), nn.Linear(64, CLASSES))
    return model


def densenet() -> nn.Module:
    return models.DenseNet(8, (2, 2, 2), num_init_features=16, num_classes=CLASSES)


def squeezenet() -> nn.Module:
    return models.squeezenet1_1(num_classes=CLASSES)


def googlenet() -> nn.Module:
    return models.googlenet(num_classes=CLASSES, aux_logits=True, init_weights=False)


def mobilenet_v2() -> nn.Module:
    return models.mobilenet_v2(num_classes=CLASSES, width_mult=0.35)


def mobilenet_v3() -> nn.Module:
    return models.mobilenet_v3_small(num_classes=CLASSES, width_mult=0.5)


def mnasnet() -> nn.Module:
    return models.mnasnet0_5(num_classes=CLASSES)


def shufflenet_v2() -> nn.Module:
    return models.shufflenet_v2_x0_5(num_classes=CLASSES)


def efficientnet() -> nn.Module:
    block = partial(MBConvConfig, width_mult=1.0, depth_mult=1.0)
    return models.EfficientNet(
        [block(1, 3, 1, 16, 16, 1), block(4, 3, 2, 16, 24, 2), block(4, 5, 2, 24, 40, 1)],
        dropout=0.2,
        num_classes=CLASSES,
        last_channel=128,
    )


def efficientnet_v2() -> nn.Module:
    return models.EfficientNet(
        [
            FusedMBConvConfig(1, 3, 1, 16, 16, 1),
            FusedMBConvConfig(4, 3, 2, 16, 24, 1),
            MBConvConfig(4, 3, 2, 24, 40, 1),
        ],
        dropout=0.2,
        num_classes=CLASSES,
        last_channel=128,
    )


def regnet_y() -> nn.Module:
    parameters = BlockParams.from_init_params(depth=4, w_0=16, w_a=16.0, w_m=2.5, group_width=8, se_ratio=0.25)
    return models.RegNet(parameters, num_classes=CLASSES)


def convnext() -> nn.Module:
    settings = [CNBlockConfig(32, 64, 1), CNBlockConfig(64, 96, 1), CNBlockConfig(96, None, 1)]
    return models.ConvNeXt(settings, num_classes=CLASSES, layer_scale=1.0)


def vit() -> nn.Module:
    model = models.VisionTransformer(SIZE, 8, 2, 4, 64, 128, num_classes=CLASSES)
    nn.init.normal_(model.heads.head.weight, std=0.1)  # zeros otherwise
    return model


def swin() -> nn.Module:
    return models.SwinTransformer([2, 2], 32, [1, 1], [2, 4], [4, 4], num_classes=CLASSES)


def swin_v2() -> nn.Module:
    return models.SwinTransformer(
        [2, 2],
        32,
        [1, 1],
        [2, 4],
        [4, 4],
        num_classes=CLASSES,
        block=SwinTransformerBlockV2,
        downsample_layer=models.swin_transformer.PatchMergingV2,
    )


def maxvit() -> nn.Module:
    return models.MaxVit((SIZE, SIZE), 16, 4, [16, 32], [1, 1], 16, 0.0, num_classes=CLASSES)


FAMILIES = {
    make.__name__: make
    for make in (
        *(alexnet, resnet, resnext, vgg, vgg_bn, densenet, squeezenet, googlenet, mobilenet_v2, mobilenet_v3, mnasnet),
        *(shufflenet_v2, efficientnet, efficientnet_v2, regnet_y, convnext, vit, swin, swin_v2, maxvit),
    )
}
LARGER = {"alexnet": 64, "squeezenet": 64, "googlenet": 64}
"""Sides of images of families that need more than `SIZE` pixels."""


def build(family: str) -> nn.Module:
    """With the same random weights and batch statistics whenever it is built, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = FAMILIES[family]()
        with torch.no_grad():
            model.train()
            model(images(family, 8, seed=1))
    return model.eval()


def images(family: str, count: int, seed: int = 0) -> torch.Tensor:
    side = LARGER.get(family, SIZE)
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))
