"""Predict for pictures, with an artifact or an exported file."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any


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
    predictions = predictor.predict(pictures)
    images = predictor.info.images
    samples = [pictures[start : start + images] for start in range(0, len(pictures), images)]
    named = [{"file": str(sample[0]), **prediction} for sample, prediction in zip(samples, predictions, strict=True)]
    if options.json:
        console.print(json.dumps(named, indent=2), markup=False, soft_wrap=True)
    else:
        console.print(_table(named))
    if options.draw:
        folder = Path(options.draw)
        folder.mkdir(parents=True, exist_ok=True)
        for number, (sample, prediction) in enumerate(zip(samples, predictions, strict=True)):
            file = folder / f"{number:04}-{Path(str(sample[0])).stem}"
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
    """One column per value that is a number or a text; lists, such as the next classes, are in the JSON."""
    from rich.table import Table
    from rich.text import Text

    columns = [key for key, value in predictions[0].items() if isinstance(value, str | int | float)]
    table = Table(*columns, box=None, pad_edge=False)
    for prediction in predictions:
        cells = [prediction.get(column, "") for column in columns]
        table.add_row(*(Text(f"{cell:.4f}" if isinstance(cell, float) else str(cell)) for cell in cells))
    return table
