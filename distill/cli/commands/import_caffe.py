"""Read a network that Caffe trained, and write it as an artifact with the same outputs."""

from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """Both of Caffe's files, and how its network reads pixels."""
    parser.add_argument("prototxt", metavar="MODEL.prototxt", help="the deploy prototxt, in text")
    parser.add_argument("caffemodel", metavar="MODEL.caffemodel")
    parser.add_argument("--output", metavar="FILE", help="default: MODEL.safetensors beside the caffemodel")
    help_ = "what Caffe takes from pixels from 0 to 255, for each channel or once; default: 0"
    parser.add_argument("--mean", type=float, nargs="+", default=[], metavar="VALUE", help=help_)
    parser.add_argument("--scale", type=float, default=1.0, help="what Caffe then multiplies pixels by; default: 1")
    parser.add_argument(
        "--order", choices=["bgr", "rgb"], default="bgr", help="of channels; default: bgr, as Caffe has it"
    )


def run(options: Namespace) -> None:
    """Write the artifact and print what the network is made of."""
    from distill.artifact import Artifact
    from distill.console import console
    from distill.models import cost
    from distill.models.caffe import read

    net = read(options.prototxt, options.caffemodel)
    about = _about(next(iter(net.inputs.values())), options)
    path = Path(options.output or Path(options.caffemodel).with_suffix(".safetensors"))
    written = Artifact(net, network=net.entry, about=about).save(path)
    kinds = Counter(layer["type"] for layer in net.layers)
    console.print(f"layers   {', '.join(f'{count} {kind}' for kind, count in kinds.most_common())}")
    console.print(f"inputs   {', '.join(f'{name} {list(shape)}' for name, shape in net.inputs.items())}")
    console.print(f"total    {cost.params(net):,} parameters")
    console.print(f"{path}: {written:,} bytes", soft_wrap=True)


def _about(shape: Sequence[int], options: Namespace) -> dict[str, object]:
    """What images the network reads, for calibration; nothing where it does not read images."""
    from distill.data.info import DataInfo
    from distill.data.preprocessing import Preprocessing
    from distill.errors import ArtifactError

    channels, *size = shape
    if options.mean and len(options.mean) not in (1, channels):
        raise ArtifactError(f"--mean has {len(options.mean)} values, but the network reads {channels} channels")
    if len(size) != 2:
        return {}
    mean = (options.mean * channels if len(options.mean) == 1 else options.mean) or [0.0] * channels
    height, width = size
    info = DataInfo(
        channels=channels,
        image_size=(height, width),
        mean=tuple(value / 255 for value in mean),
        std=(1 / (255 * options.scale),) * channels,
        preprocessing=Preprocessing("L" if channels == 1 else "RGB", resize=(height, width)).to_json(),
    )
    return {"info": info.to_json(), "order": options.order}
