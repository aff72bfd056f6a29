"""Run a recipe's compression hooks on a finished network: images calibrate them, labels are not needed."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distill.cli.arguments import positive

if TYPE_CHECKING:
    from rich.table import Table

    from distill.artifact.step import Step

EXPORTED = ("student.onnx", "student.xml", "student.runtime.safetensors")
"""Names of exported files, which lie beside the artifact."""
METRICS = {
    "change": "change of output, %",
    "same class": "same class, %",
    "accuracy": "accuracy, %",
    "detections": "detections kept, %",
}


def add_arguments(parser: ArgumentParser) -> None:
    """The network, the recipe and the images."""
    parser.add_argument("model", metavar="MODEL", help="a .safetensors file of a run or of import-caffe")
    parser.add_argument("--recipe", required=True, metavar="NAME|FILE", help="its sections compress and export count")
    parser.add_argument("--images", required=True, metavar="FOLDER", help="pictures such as the network is to read")
    help_ = "without FILE, folders of pictures are classes; FILE has lines 'PATH CLASS'"
    parser.add_argument("--labels", nargs="?", const="folders", metavar="FILE", help=help_)
    parser.add_argument("--output", metavar="FILE", help="default: MODEL.small.safetensors")
    parser.add_argument("--limit", type=positive, default=512, metavar="N", help="pictures that are read; default: 512")
    parser.add_argument("--allow", action="append", default=[], metavar="MODULE", help="module of your own network")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="for example compress.quantize.bits=6")


def run(options: Namespace) -> None:
    """Apply the hooks, export, and print what each of them saved and changed."""
    from distill.artifact import open_artifact
    from distill.cli._artifacts import info_of, task_of
    from distill.console import console
    from distill.data.image_inputs import read_inputs
    from distill.errors import ArtifactError, UserError
    from distill.pipeline.compress_network import compress_network, export_compressed
    from distill.recipe.loading import load_compression

    compression = load_compression(options.recipe, options.overrides)
    artifact = open_artifact(Path(options.model), allow=options.allow)
    if "info" not in artifact.about:
        raise ArtifactError(f"'{options.model}' does not say what images it reads")
    if artifact.encoded and compression.compress:
        raise ArtifactError(
            f"'{options.model}' is entropy-coded, and hooks come before 'encode': "
            "take the network.safetensors of an earlier step, in the run's folders student/ and compress/"
        )
    info, order = info_of(artifact), artifact.about.get("order", "rgb")
    path = Path(options.output or Path(options.model).with_suffix(".small.safetensors"))
    path.parent.mkdir(parents=True, exist_ok=True)
    others = [] if path.exists() else [name for name in EXPORTED if (path.parent / name).exists()]
    if compression.export and others:
        raise UserError(f"{path.parent / others[0]} is there already: remove it, or name an --output in another folder")
    inputs = read_inputs(Path(options.images), info, order=order, labels=options.labels, limit=options.limit)
    task = task_of(artifact) if compression.export and "task" in artifact.about else None
    result = compress_network(artifact, compression, inputs, info, task, on_step=_announce)
    console.print(table(result.steps))
    kept = "; hooks have not seen them" if result.measured < len(inputs.images) else ", the ones that hooks have seen"
    console.print(f"measured on {result.measured} of {len(inputs.images)} images{kept}")
    console.print(f"{path}: {result.artifact.save(path):,} bytes", soft_wrap=True)
    for made in export_compressed(result, compression, path.parent).values():
        console.print(f"{made.path}: {made.sizes()}, differs by {made.difference:.1e}", soft_wrap=True)


def table(steps: "Sequence[Step]") -> "Table":
    """What each hook saved, and what it changed."""
    from rich.table import Table

    shown = [name for name in METRICS if any(name in step.metrics for step in steps)]
    columns = ("step", "params", "MACs", "bytes", "smaller", *(METRICS[name] for name in shown))
    made = Table(*columns, box=None, pad_edge=False)
    for column in made.columns[1:]:
        column.justify = "right"
    for step in steps:
        counts = (_count(step.params, step.effective_params), _count(step.macs, step.effective_macs))
        figures = (*counts, f"{step.bytes:,}", f"{steps[0].bytes / step.bytes:.2f}x")
        made.add_row(step.step, *figures, *(f"{100 * step.metrics[name]:.2f}" for name in shown))
    return made


def _count(dense: int, effective: int | None) -> str:
    return f"{dense:,}" if effective is None else f"{dense:,} ({effective:,} effective)"


def _announce(step: "Step") -> None:
    from rich.text import Text

    from distill.console import console

    console.print(Text.assemble((f"{step.step:<22}", "green"), f" {step.bytes:,} bytes, {step.seconds:.0f} s"))
