"""Write an artifact in a format that a phone or a server runs, and check it."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from distill.cli.arguments import folder


def add_arguments(parser: ArgumentParser) -> None:
    """The artifact, the format, and images to check the file on."""
    parser.add_argument("artifact", help="a .safetensors file of a run")
    parser.add_argument("--allow", action="append", default=[], metavar="MODULE", help="module of a network of yours")
    parser.add_argument("--to", default="onnx", metavar="FORMAT", help="one that 'list exports' shows; default: onnx")
    parser.add_argument("--output", type=folder, metavar="FOLDER", help="default: beside the artifact")
    parser.add_argument("--images", action="append", metavar="PATH", help="pictures, a folder or a glob; else noise")


def run(options: Namespace) -> None:
    """Write the file; it is compared with the artifact on the images."""
    from distill import registry
    from distill.cli._artifacts import info_of, open_made_by_recipe, task_of
    from distill.console import console
    from distill.data.image_inputs import unlabelled_batches
    from distill.export import keeps_any_size, refuse_missing
    from distill.recipe.typed import built

    registry.exporter.check(options.to)
    refuse_missing(options.to)
    artifact = open_made_by_recipe(options.artifact, options.allow)
    info, task = info_of(artifact), task_of(artifact)
    if not (task.any_size and keeps_any_size(options.to)):
        info = info.resized()
    samples = unlabelled_batches(info, options.images, at_most=512 if options.images else 64)
    beside = options.output or Path(options.artifact).parent
    available = {
        "artifact": lambda: artifact,
        "folder": lambda: beside,
        "samples": lambda: samples,
        "task": lambda: task,
    }
    made = built(options.to, registry.exporter, available)
    checked = "pictures" if options.images else "noise (--images PATH checks on pictures)"
    console.print(
        f"{made.path}: {made.sizes()}; on {checked} it differs from the artifact by {made.difference:.1e}, "
        f"{task.agreement_name} {100 * made.agreement:.1f} %"
    )
