"""Compare lossless codecs on the weights of an artifact, a safetensors file or a state dict."""

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    from distill.measure import coding

    parser.add_argument("action", choices=["compare"])
    parser.add_argument("file", help="an artifact, a .safetensors file or a state dict (.pth)")
    parser.add_argument("--stages", metavar="A,B,...", help=f"combined in pairs; default: {','.join(coding.STAGES)}")
    parser.add_argument("--prune", type=float, default=0.0, help="part of each float weight set to 0; default: 0")
    parser.add_argument("--bits", type=int, default=8, help="of each float weight's codes, 2 to 16; default: 8")
    parser.add_argument("--csv", metavar="FILE", help="write every figure there")
    parser.add_argument("--html", metavar="FILE", help="write a page with a heat map there")
    parser.add_argument("--allow", action="append", default=[], metavar="MODULE", help="module of your own network")


def run(options: Namespace) -> None:
    """Print the table, and write it as CSV and as a page."""
    from rich.table import Table

    from distill.console import console
    from distill.files.atomic import replacing
    from distill.measure import coding
    from distill.measure.codes import read
    from distill.report.coding import HEADERS, cells, page, table

    path = Path(options.file)
    for target in filter(None, (options.csv, options.html)):
        _refuse(Path(target), path)
    stages = _stages(options.stages) if options.stages else list(coding.STAGES)
    tensors = read(path, options.prune, options.bits, options.allow)
    rows = []
    for row in coding.compare(tensors, [("context",), *coding.pairs(stages)]):
        rows.append(row)
        console.log(f"{row.name}: {row.bits_per_weight:.3f} bits per weight")
    rows.sort(key=lambda row: row.bits_per_weight)
    shown = Table(*HEADERS, box=None, pad_edge=False)
    for row in rows:
        shown.add_row(*cells(row))
    console.print(shown)
    title = f"{path.name}, {100 * options.prune:g} % pruned, {options.bits} bits"
    for target, text in ((options.csv, table(rows)), (options.html, page(rows, title))):
        if target:
            with replacing(Path(target)) as part:
                part.write_text(text, encoding="utf-8")
            console.print(f"written: {target}")


def _refuse(target: Path, source: Path) -> None:
    """A target that cannot be written, or may not, before anything is measured."""
    from distill.errors import UserError

    if target.resolve() == source.resolve():
        raise UserError(f"{target} is the file to read: give --csv and --html another name")
    if target.is_dir():
        raise UserError(f"{target} is a folder: add a file's name to it")


def _stages(text: str) -> list[str]:
    """Split at commas that are not inside a stage's parentheses."""
    stages, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            stages.append("")
        else:
            stages[-1] += letter
    return [stage.strip() for stage in stages]
