"""Predict for pictures, with an artifact or an exported file."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

from distill.cli.arguments import folder

SUMMARISED = ("objects", "areas")
"""Of detection and segmentation, which predict nothing that is one number or text."""
LARGEST = 3
"""Areas that are shown."""
NAME = 60
"""Characters of a picture's name in that of its drawing: of up to four bytes each, and file systems take 255."""


def add_arguments(parser: ArgumentParser) -> None:
    """The network, the pictures, and where predictions go."""
    parser.add_argument("artifact", help="a .safetensors file of a run, an .onnx file, or OpenVINO's .xml")
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="files, folders or globs")
    parser.add_argument("--allow", action="append", default=[], metavar="MODULE", help="module of a network of yours")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    parser.add_argument(
        "--draw",
        type=folder,
        metavar="FOLDER",
        help="write pictures with their predictions; of optical flow .flo files too",
    )


def run(options: Namespace) -> None:
    """Print one row per picture; pictures are prepared as the network says."""
    from distill.data._scan import check_pictures
    from distill.data.picture_arrays import picture_files

    predictor = _predictor(options.artifact, options.allow)
    pictures = picture_files(options.images)
    check_pictures(pictures)
    if options.draw:
        options.draw.mkdir(parents=True, exist_ok=True)
    predictions = _predictions(predictor, pictures, options.draw)
    (_print_json if options.json else _print_table)(predictions)


def _predictions(predictor: Any, pictures: Sequence[Path], drawings: Path | None) -> Iterator[dict[str, Any]]:
    """One after another, each drawn before the next is made: what is done stays, and large ones take no memory."""
    images = predictor.info.images
    samples = [pictures[start : start + images] for start in range(0, len(pictures), images)]
    for number, (sample, prediction) in enumerate(zip(samples, predictor.predict(pictures), strict=True)):
        if drawings:
            file = drawings / f"{number:04}-{sample[0].stem[:NAME]}"
            predictor.draw(sample, prediction).save(file.with_name(f"{file.name}.png"))
            predictor.write(sample, prediction, file)
        yield {"file": str(sample[0]), **prediction}


def _predictor(path: str, allow: Sequence[str]) -> Any:
    """By PyTorch, or by NumPy where it is not installed."""
    from distill.runtime import predict as runtime

    if runtime.torch_is_missing():
        sys.stderr.write("PyTorch is not installed: NumPy computes\n")
        return runtime.Predictor.open(path, allow)
    from distill.pipeline.predict import Predictor

    return Predictor.open(path, allow)


def _print_json(predictions: Iterable[dict[str, Any]]) -> None:
    """A list, each prediction as soon as there is one; closed where a failure ends it, too."""
    from distill.console import console

    opening = "["
    try:
        for prediction in predictions:
            text = indent(json.dumps(prediction, indent=2), "  ")
            console.print(f"{opening}\n{text}", end="", soft_wrap=True)
            opening = ","
    finally:
        if opening == ",":
            console.print("\n]")


def _print_table(predictions: Iterable[dict[str, Any]]) -> None:
    """One column per value that is a number or a text, or if there is none, a summary; all else is in the JSON. The
    width of a column depends on all rows, so the table is printed at the end, be it a failure."""
    from rich.table import Table
    from rich.text import Text

    from distill.console import console

    table, columns = Table(box=None, pad_edge=False), list[str]()
    try:
        for prediction in predictions:
            if not columns:
                columns = _columns(prediction)
                for column in columns:
                    table.add_column(column)
            table.add_row(*(Text(_cell(prediction.get(column, ""))) for column in columns))
    finally:
        if columns:
            console.print(table)


def _columns(prediction: dict[str, Any]) -> list[str]:
    columns = [key for key, value in prediction.items() if isinstance(value, str | int | float)]
    return columns if columns != ["file"] else columns + [key for key in prediction if key in SUMMARISED]


def _cell(value: Any) -> str:
    """A number or a text; of areas the largest; of objects how many there are of each class."""
    match value:
        case float():
            return f"{value:.4f}"
        case dict():
            return ", ".join(f"{name} {100 * part:.1f} %" for name, part in list(value.items())[:LARGEST])
        case list():
            counts = Counter(found["class"] for found in value)
            return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"
    return str(value)
