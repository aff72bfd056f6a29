"""Commands for networks that were trained elsewhere: read them from another framework's files, and compress them."""

from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from distill.artifact import Artifact, open_artifact
from distill.artifact.step import Step
from distill.console import console
from distill.data.info import DataInfo
from distill.data.preprocessing import Preprocessing
from distill.errors import ArtifactError
from distill.models import cost

METRICS = {
    "change": "change of output, %",
    "same class": "same class, %",
    "accuracy": "accuracy, %",
    "detections": "detections kept, %",
}


def import_caffe(options: Namespace) -> None:
    """Read a network that Caffe trained, and write it as an artifact with the same outputs."""
    from distill.models.caffe import read  # protobuf's messages are built when it is imported

    net = read(options.prototxt, options.caffemodel)
    about = _about(next(iter(net.inputs.values())), options)
    path = Path(options.output or Path(options.caffemodel).with_suffix(".safetensors"))
    written = Artifact(net, network=net.entry, about=about).save(path)
    kinds = Counter(layer["type"] for layer in net.layers)
    console.print(f"layers   {', '.join(f'{count} {kind}' for kind, count in kinds.most_common())}")
    console.print(f"inputs   {', '.join(f'{name} {list(shape)}' for name, shape in net.inputs.items())}", markup=False)
    console.print(f"total    {cost.params(net):,} parameters")
    console.print(f"{path}: {written:,} bytes", soft_wrap=True)


def compress(options: Namespace) -> None:
    """Run a recipe's compression hooks on a finished network: images calibrate them, labels are not needed."""
    from distill.data.image_inputs import read_inputs
    from distill.pipeline.compress_network import compress_network
    from distill.recipe.loading import load_compression

    compression = load_compression(options.recipe, options.overrides)
    artifact = open_artifact(Path(options.model), allow=options.allow)
    if "info" not in artifact.about:
        raise ArtifactError(f"'{options.model}' does not say what images it reads")
    info, order = DataInfo.from_json(artifact.about["info"]), artifact.about.get("order", "rgb")
    inputs = read_inputs(Path(options.images), info, order=order, labels=options.labels, limit=options.limit)
    path = Path(options.output or Path(options.model).with_suffix(".small.safetensors"))
    result = compress_network(artifact, compression, inputs, info, path.parent, on_step=_announce)
    console.print(table(result.steps))
    kept = "; hooks have not seen them" if result.measured < len(inputs.images) else ", the ones that hooks have seen"
    console.print(f"measured on {result.measured} of {len(inputs.images)} images{kept}")
    for made in result.exported.values():
        console.print(f"{made.path}: {made.nbytes:,} bytes, differs by {made.difference:.1e}", soft_wrap=True)
    console.print(f"{path}: {result.artifact.save(path):,} bytes", soft_wrap=True)


def _about(shape: Sequence[int], options: Namespace) -> dict[str, object]:
    """What images the network reads, for calibration; nothing where it does not read images."""
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


def table(steps: Sequence[Step]) -> Table:
    """What each hook saved, and what it changed."""
    shown = [name for name in METRICS if any(name in step.metrics for step in steps)]
    columns = ("step", "params", "MACs", "bytes", "smaller", *(METRICS[name] for name in shown))
    made = Table(*columns, box=None, pad_edge=False)
    for column in made.columns[1:]:
        column.justify = "right"
    for step in steps:
        figures = (f"{step.params:,}", f"{step.macs:,}", f"{step.bytes:,}", f"{steps[0].bytes / step.bytes:.2f}x")
        made.add_row(step.step, *figures, *(f"{100 * step.metrics[name]:.2f}" for name in shown))
    return made


def add_import_caffe(parser: ArgumentParser) -> None:
    """Arguments of `import_caffe`."""
    parser.add_argument("prototxt", metavar="MODEL.prototxt", help="the deploy prototxt, in text")
    parser.add_argument("caffemodel", metavar="MODEL.caffemodel")
    parser.add_argument("--output", metavar="FILE", help="default: MODEL.safetensors beside the caffemodel")
    help_ = "what Caffe takes from pixels from 0 to 255, for each channel or once; default: 0"
    parser.add_argument("--mean", type=float, nargs="+", default=[], metavar="VALUE", help=help_)
    parser.add_argument("--scale", type=float, default=1.0, help="what Caffe then multiplies pixels by; default: 1")
    parser.add_argument(
        "--order", choices=["bgr", "rgb"], default="bgr", help="of channels; default: bgr, as Caffe has it"
    )


def add_compress(parser: ArgumentParser) -> None:
    """Arguments of `compress`."""
    parser.add_argument("model", metavar="MODEL", help="a .safetensors file of a run or of import-caffe")
    parser.add_argument("--recipe", required=True, metavar="NAME|FILE", help="its sections compress and export count")
    parser.add_argument("--images", required=True, metavar="FOLDER", help="pictures such as the network is to read")
    help_ = "without FILE, folders of pictures are classes; FILE has lines 'PATH CLASS'"
    parser.add_argument("--labels", nargs="?", const="folders", metavar="FILE", help=help_)
    parser.add_argument("--output", metavar="FILE", help="default: MODEL.small.safetensors")
    parser.add_argument("--limit", type=int, default=512, metavar="N", help="pictures that are read; default: 512")
    parser.add_argument("--allow", action="append", default=[], metavar="MODULE", help="module of your own network")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="for example compress.quantize.bits=6")


def _announce(step: Step) -> None:
    console.print(f"[green]{step.step:<22}[/green] {step.bytes:,} bytes, {step.seconds:.0f} s")
