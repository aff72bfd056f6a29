"""Time an artifact in ONNX Runtime: median and quartiles."""

from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """The artifact, images, batch sizes and threads."""
    parser.add_argument("artifact", help="a .safetensors file of a run")
    parser.add_argument("--allow", action="append", default=[], metavar="MODULE", help="module of a network of yours")
    parser.add_argument("--images", action="append", metavar="PATH", help="pictures, a folder or a glob; else noise")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 32], metavar="N", help="default: 1 32")


def run(options: Namespace) -> None:
    """Time it at every batch size, for about two seconds each."""
    from rich.table import Table

    from distill.cli._artifacts import info_of, open_made_by_recipe
    from distill.console import console
    from distill.data.image_inputs import unlabelled_batches
    from distill.errors import UserError
    from distill.export import onnx_file
    from distill.measure import latency
    from distill.models.surgery import deployable

    if options.threads < 1 or min(options.batch_sizes) < 1:
        raise UserError("--threads and --batch-sizes are numbers of at least 1")
    artifact = open_made_by_recipe(options.artifact, options.allow)
    example = unlabelled_batches(info_of(artifact), options.images, at_most=max(options.batch_sizes))[0].inputs
    file = onnx_file.serialize(deployable(artifact.model), example)
    timings = latency.file_latency(file, example, batch_sizes=options.batch_sizes, threads=options.threads, seconds=2.0)
    table = Table("ONNX Runtime", "median ms", "25 %", "75 %", "images/s", box=None, pad_edge=False)
    for size, timing in zip(options.batch_sizes, timings.values(), strict=True):
        throughput = 1000 * size / timing.median
        table.add_row(
            f"batch {size}", f"{timing.median:.3f}", f"{timing.p25:.3f}", f"{timing.p75:.3f}", f"{throughput:,.0f}"
        )
    console.print(table)
