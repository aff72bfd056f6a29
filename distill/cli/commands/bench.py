"""Time artifacts in ONNX Runtime, in turns: median and quartiles."""

from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """The artifacts, images, batch sizes and threads."""
    parser.add_argument("artifacts", nargs="+", metavar="artifact", help=".safetensors files of runs")
    parser.add_argument("--allow", action="append", default=[], metavar="MODULE", help="module of a network of yours")
    parser.add_argument("--images", action="append", metavar="PATH", help="pictures, a folder or a glob; else noise")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 32], metavar="N", help="default: 1 32")


def run(options: Namespace) -> None:
    """Time them at every batch size, for about two seconds each, one run of each a round."""
    from functools import partial

    import torch
    from rich.table import Table

    from distill.cli._artifacts import info_of, open_made_by_recipe
    from distill.console import console
    from distill.data.image_inputs import unlabelled_batches
    from distill.errors import UserError
    from distill.measure import latency
    from distill.models.surgery import deployable

    if options.threads < 1 or min(options.batch_sizes) < 1:
        raise UserError("--threads and --batch-sizes are numbers of at least 1")
    running = {}
    for path in options.artifacts:
        artifact = open_made_by_recipe(path, options.allow)
        example = unlabelled_batches(info_of(artifact), options.images, at_most=max(options.batch_sizes))[0].inputs
        running[path] = example, latency.predictor(deployable(artifact.model), example, threads=options.threads)
    table = Table("artifact", "batch", "median ms", "25 %", "75 %", "images/s", box=None, pad_edge=False)
    for size in options.batch_sizes:
        index = torch.arange(size)
        runs = {path: partial(predict, images[index % len(images)]) for path, (images, predict) in running.items()}
        for path, timing in latency.in_turns(runs, seconds=2.0).items():
            milliseconds = (f"{value:.3f}" for value in (timing.median, timing.p25, timing.p75))
            table.add_row(path, str(size), *milliseconds, f"{1000 * size / timing.median:,.0f}")
    console.print(table)
