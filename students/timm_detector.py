"""Liu et al.: SSD: Single Shot MultiBox Detector. arXiv:1512.02325, on the networks of timm (Wightman: PyTorch Image
Models, 2019, github.com/huggingface/pytorch-image-models). An extra: pip install 'distill[timm]'.

``num_classes`` does not count the background. Nothing is downloaded: a teacher's ``weights`` are a file, of the whole
detector or of timm's classifier.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from distill.registry.nearest import did_you_mean
from distill.registry.ranges import Count, Index
from students import student
from students._detector import Detector, Head, extra_maps
from students.ssd import ANCHORS, EXTRAS


class TimmBody(nn.Module):
    """A network of timm without its classifier, and SSD's layers behind it: from images to maps, early to late.

    A state dict of timm's whole classifier may be loaded: its last layers are left out, SSD's keep their values.
    """

    def __init__(self, network: Any, extras: dict[str, nn.Module]) -> None:
        super().__init__()
        self.network, self.extras = network, nn.ModuleDict(extras)
        self.channels_last = str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = list(self.network(images))
        if self.channels_last:
            maps = [features.movedim(-1, 1) for features in maps]
        for extra in self.extras.values():
            maps.append(extra(maps[-1]))
        return maps


@student("ssd_timm")
def ssd_timm(
    *,
    num_classes: Count = 80,
    anchors: tuple[Count, ...] = ANCHORS,
    backbone: str = "resnet18",
    strides: tuple[Count, ...] = (16, 32),
    extras: tuple[Count, ...] = EXTRAS,
    separable: bool = False,
    bins: Index = 0,
    channels: Count = 3,
) -> nn.Module:
    """SSD on a network of timm: 3x3 convolutions as the head, SSDLite's with ``separable``.

    Args:
        num_classes: of objects.
        anchors: in a cell of each map.
        backbone: timm's name of a network that gives feature maps.
        strides: of its maps that are read; of several maps of one stride the last one.
        extras: channels of the maps behind them.
        separable: depthwise-separable ``extras`` and head.
        bins: of the distribution of each of a box's values; 0: the values themselves.
        channels: of the input.

    Raises:
        ValueError: timm is not installed or has no such network, no map of such a stride, or anchors for another
            number of maps.
    """
    network = _features(backbone, strides, channels)
    sizes = network.feature_info.channels()
    head = Head([*sizes, *extras], anchors, num_classes, bins, kernel=3, separable=separable)
    body = TimmBody(network, extra_maps(sizes[-1], extras, separable=separable))
    detector = Detector(body, head, len(sizes) + len(extras))
    detector.register_load_state_dict_pre_hook(_read_classifier)
    return detector


def _features(backbone: str, strides: Sequence[int], channels: int) -> Any:
    """The layers of a network of timm up to the last of the maps, with random weights."""
    try:
        import timm
    except ImportError:
        raise ValueError("timm is not installed: pip install 'distill[timm]'") from None
    if not timm.is_model(backbone):
        raise ValueError(f"timm has no network {did_you_mean(backbone, timm.list_models())}")

    def build(**places: Any) -> Any:
        return timm.create_model(backbone, pretrained=False, features_only=True, in_chans=channels, **places)

    found = build().feature_info.reduction()
    if absent := [stride for stride in strides if stride not in found]:
        raise ValueError(f"'{backbone}' has maps of strides {', '.join(map(str, found))}, but none of {absent[0]}")
    last = {stride: place for place, stride in enumerate(found)}
    network = build(out_indices=tuple(last[stride] for stride in strides))
    for layer in network.modules():
        if hasattr(layer, "inplace"):
            layer.inplace = False  # losses and hooks read what layers output
    return network


def _read_classifier(detector: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before a state dict is loaded: give one of timm's classifier the detector's names, and SSD's layers' own values.

    timm joins the path of a layer inside a sequence with "_" where only maps are wanted.
    """
    body = "body.network."
    own = {prefix + name: value for name, value in detector.state_dict().items()}
    wanted = [name for name in own if name.startswith(prefix + body)]
    sources = {name: [key for key in _spellings(name.removeprefix(prefix + body)) if key in state] for name in wanted}
    if prefix or not all(sources.values()):
        return
    values = {name: state[keys[0]] for name, keys in sources.items()}
    state.clear()
    state.update(own | values)


def _spellings(name: str) -> list[str]:
    """A path as timm may have it in the classifier: "stages_0.blocks" is "stages.0.blocks" there."""
    first, _, rest = name.partition(".")
    sequence, _, place = first.rpartition("_")
    return [name, f"{sequence}.{place}.{rest}"] if place.isdigit() else [name]
