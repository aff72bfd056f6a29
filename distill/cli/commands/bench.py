"""Time artifacts in ONNX Runtime, in turns: median and quartiles."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill.measure.latency import Race


def add_arguments(parser: ArgumentParser) -> None:
    """The artifacts, images, batch sizes and threads."""
    parser.add_argument("artifacts", nargs="+", metavar="artifact", help=".safetensors files of runs")
    parser.add_argument("--allow", action="append", default=[], metavar="MODULE", help="module of a network of yours")
    parser.add_argument("--images", action="append", metavar="PATH", help="pictures, a folder or a glob; else noise")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 32], metavar="N", help="default: 1 32")


def run(options: Namespace) -> None:
    """Time them at every batch size, for about two seconds each, one run of each a round."""
    from rich.table import Table

    from distill.cli._artifacts import info_of, open_made_by_recipe
    from distill.console import console
    from distill.data.image_inputs import unlabelled_batches
    from distill.errors import UserError
    from distill.measure import latency
    from distill.models.surgery import deployable

    if options.threads < 1 or min(options.batch_sizes) < 1:
        raise UserError("--threads and --batch-sizes are numbers of at least 1")
    if other := [path for path in options.artifacts if path.endswith((".onnx", ".xml", ".xz"))]:
        raise UserError(f"bench times artifacts, .safetensors files of runs, not {other[0]}")
    networks, images = {}, {}
    for place, path in enumerate(options.artifacts):  # one file may be named twice: against itself
        name, artifact = str(place), open_made_by_recipe(path, options.allow)
        images[name] = unlabelled_batches(info_of(artifact), options.images, at_most=max(options.batch_sizes))[0].inputs
        networks[name] = latency.predictor(deployable(artifact.model), images[name], threads=options.threads)
    race = latency.round_robin(networks, images, options.batch_sizes, seconds=2.0)
    table = Table("artifact", "batch", "median ms", "25 %", "75 %", "images/s", box=None, pad_edge=False)
    rows = [row for size in options.batch_sizes for row in _rows(options.artifacts, race, size)]
    for row in rows:
        table.add_row(*row)
    console.print(table)
    threads = "one thread" if options.threads == 1 else f"{options.threads} threads"
    marked = any(latency.SAME_SPEED in cell for row in rows for cell in row)
    same = f"{latency.SAME_SPEED} quartiles overlap with those of the row above" if marked else ""
    how = f"latency: median on {threads}, all networks in turns, in ONNX Runtime"
    console.print("; ".join(filter(None, [how, same, latency.busy(race.waited)])))


def _rows(paths: Sequence[str], race: "Race", size: int) -> Iterator[list[str]]:
    """The cells of each artifact at one batch size; a latency that cannot be told from the one above is marked."""
    from distill.measure.latency import SAME_SPEED, same_speed

    timings = [race.timings[str(place)][f"batch{size}"] for place in range(len(paths))]
    for path, timing, above in zip(paths, timings, [None, *timings], strict=False):
        mark = SAME_SPEED if above and same_speed(timing.quartiles, above.quartiles) else ""
        median, p25, p75 = (f"{value:.3f}" for value in (timing.median, *timing.quartiles))
        yield [path, str(size), f"{mark}{median}", p25, p75, f"{1000 * size / timing.median:,.0f}"]
