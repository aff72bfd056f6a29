"""Networks timed against each other, in ONNX Runtime and OpenVINO, in turns: what disturbs one disturbs all."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from benchmarks import _quartiles, _results
from benchmarks._results import Row
from distill.artifact import Artifact
from distill.batch import Batch, Predict
from distill.data.info import DataInfo
from distill.errors import ExportError
from distill.export import exporter
from distill.measure.latency import round_robin
from distill.tasks.classification import Classification

RUNTIMES = {"ONNX Runtime": "onnx", "OpenVINO": "openvino"}
THREADS = (1, 2)
BATCHES = (1, 32)
SECONDS = 0.5
"""For each network in each runtime at each batch size, on average."""
Entrant = dict[str, Mapping[int, Callable[[], Predict]]]
"""Runtime -> threads -> what makes a network answer in that way."""


def exported(artifact: Artifact, samples: list[Batch]) -> Entrant:
    """The network in every runtime that takes it."""
    made: Entrant = {}
    with TemporaryDirectory() as folder, _threads(max(THREADS)):
        for runtime, name in RUNTIMES.items():
            try:
                file = exporter.find(name)(artifact, Path(folder), samples, _task(artifact, samples))
            except ExportError as error:
                print(f"{runtime}: {error}")
            else:
                made[runtime] = {1: file.single, max(THREADS): partial(_itself, file.predict)}
    return made


def race(networks: Mapping[str, Entrant], images: Tensor, against: str) -> Row:
    """Milliseconds of one run of a batch, medians and quartiles, by network, runtime and batch size, and how many times
    as fast as another network in the same runtime that is; every round runs every network of a runtime once."""
    row: dict[str, dict[str, dict[str, Any]]] = {
        name: {network: {} for network in networks} for name in ("milliseconds", "quartiles_ms")
    }
    waited = []
    for runtime, threads in product(RUNTIMES, THREADS):
        found = round_robin(
            {name: files[runtime][threads]() for name, files in networks.items() if threads in files.get(runtime, {})},
            images,
            BATCHES,
            SECONDS,
        )
        waited.append(found.waited)
        for network, timings in found.timings.items():
            columns = {title(runtime, threads, size): timings[f"batch{size}"] for size in BATCHES}
            for name, values in _quartiles.fields(columns).items():
                row[name][network] |= values
    medians = row["milliseconds"]
    ratios = {
        network: {column: medians[against][column] / took for column, took in some.items()}
        for network, some in medians.items()
    }
    return {**row, "times_as_fast": ratios, "against": against, "waited": max(waited)}


def title(runtime: str, threads: int, batch: int) -> str:
    """Of a column."""
    return f"{runtime}, {threads} thread{'s' if threads > 1 else ''}, batch {batch}"


def table(row: Row) -> str:
    """Milliseconds (times as fast) of a race."""
    columns = [title(runtime, threads, batch) for runtime in RUNTIMES for threads in THREADS for batch in BATCHES]
    lines = [[network, *(_cell(row, network, column) for column in columns)] for network in row["milliseconds"]]
    text = _results.table(["network", *columns], lines)
    return f"{text}\n\n{row['measured']}{_quartiles.note([row], text, row.get('against', ''))}"


def _cell(row: Row, network: str, column: str) -> str:
    """Empty where the runtime does not take the network."""
    if column not in row["milliseconds"][network]:
        return ""
    text = f"{row['milliseconds'][network][column]:.2f} ({row['times_as_fast'][network][column]:.2f})"
    quartiles, against = row.get("quartiles_ms", {}), row.get("against", network)
    if network == against:
        return text
    return _quartiles.marked(text, quartiles[network][column], quartiles[against][column])


def _task(artifact: Artifact, samples: list[Batch]) -> Classification:
    """Of as many classes as the network has outputs."""
    _, channels, height, width = samples[0].inputs.shape
    with torch.no_grad():
        classes = artifact.model(samples[0].inputs[:1]).shape[1]
    names = tuple(map(str, range(classes)))
    return Classification(DataInfo(channels, (height, width), (0.5,) * channels, (0.5,) * channels, names))


def _itself(predict: Predict) -> Predict:
    return predict


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """What exporters give the runtimes."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
