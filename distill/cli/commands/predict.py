"""Predict for pictures, with an artifact or an exported file."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
        "--draw", metavar="FOLDER", help="write pictures with their predictions; of optical flow .flo files too"
    )


def run(options: Namespace) -> None:
    """Print one row per picture; pictures are prepared as the network says."""
    from distill.console import console
    from distill.data.picture_arrays import expanded

    predictor = _predictor(options.artifact, options.allow)
    pictures = expanded(options.images)
    folder = Path(options.draw) if options.draw else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    predictions = predictor.predict(pictures)
    images = predictor.info.images
    samples = [pictures[start : start + images] for start in range(0, len(pictures), images)]
    named = [{"file": str(sample[0]), **prediction} for sample, prediction in zip(samples, predictions, strict=True)]
    if options.json:
        console.print(json.dumps(named, indent=2), soft_wrap=True)
    else:
        console.print(_table(named))
    if folder:
        for number, (sample, prediction) in enumerate(zip(samples, predictions, strict=True)):
            file = folder / f"{number:04}-{Path(str(sample[0])).stem[:NAME]}"
            predictor.draw(sample, prediction).save(file.with_name(f"{file.name}.png"))
            predictor.write(sample, prediction, file)


def _predictor(path: str, allow: Sequence[str]) -> Any:
    """By PyTorch, or by NumPy where it is not installed."""
    from distill.runtime import predict as runtime

    if runtime.torch_is_missing():
        sys.stderr.write("PyTorch is not installed: NumPy computes\n")
        return runtime.Predictor.open(path, allow)
    from distill.pipeline.predict import Predictor

    return Predictor.open(path, allow)


def _table(predictions: Sequence[dict[str, Any]]) -> Any:
    """One column per value that is a number or a text, or if there is none, a summary; all else is in the JSON."""
    from rich.table import Table
    from rich.text import Text

    columns = [key for key, value in predictions[0].items() if isinstance(value, str | int | float)]
    if columns == ["file"]:
        columns += [key for key, value in predictions[0].items() if key in SUMMARISED]
    table = Table(*columns, box=None, pad_edge=False)
    for prediction in predictions:
        table.add_row(*(Text(_cell(prediction.get(column, ""))) for column in columns))
    return table


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
