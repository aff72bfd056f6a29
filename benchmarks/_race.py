"""Networks timed against each other, in ONNX Runtime and OpenVINO, in turns: what disturbs one disturbs all."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmarks import _results
from benchmarks._results import Row
from distill.artifact import Artifact
from distill.batch import Batch, Predict
from distill.data.info import DataInfo
from distill.errors import ExportError
from distill.export import exporter
from distill.measure.latency import timings
from distill.tasks.classification import Classification

RUNTIMES = {"ONNX Runtime": "onnx", "OpenVINO": "openvino"}
THREADS = (1, 2)
BATCHES = (1, 32)
ROUNDS = 3
SECONDS = 0.1
"""For each batch size, in each round."""
Entrant = dict[str, Mapping[int, Callable[[], Predict]]]
"""Runtime -> threads -> what makes a network answer in that way."""
Runner = tuple[str, int]
"""Runtime and threads."""


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
    """Median milliseconds of one run of a batch, by network, runtime and batch size, and how many times as fast as
    another network in the same runtime that is; every round runs every network once in every way."""
    runners: dict[tuple[str, Runner], Predict] = {
        (network, (runtime, threads)): make()
        for network, files in networks.items()
        for runtime, makers in files.items()
        for threads, make in makers.items()
    }
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        for (network, (runtime, threads)), predict in runners.items():
            for key, timing in timings(predict, images, BATCHES, SECONDS).items():
                times[network, title(runtime, threads, int(key.removeprefix("batch")))].append(timing.median)
    medians: dict[str, dict[str, float]] = {network: {} for network in networks}
    for (network, column), values in times.items():
        medians[network][column] = statistics.median(values)
    dense = medians[against]
    ratios = {
        network: {column: dense[column] / took for column, took in some.items()} for network, some in medians.items()
    }
    return {"milliseconds": medians, "times_as_fast": ratios}


def title(runtime: str, threads: int, batch: int) -> str:
    """Of a column."""
    return f"{runtime}, {threads} thread{'s' if threads > 1 else ''}, batch {batch}"


def table(row: Row) -> str:
    """Milliseconds (times as fast) of a race."""
    columns = [title(runtime, threads, batch) for runtime in RUNTIMES for threads in THREADS for batch in BATCHES]
    lines = []
    for network, took in row["milliseconds"].items():
        ratios = row["times_as_fast"][network]
        lines.append([network, *(f"{took[name]:.2f} ({ratios[name]:.2f})" if name in took else "" for name in columns)])
    return f"{_results.table(['network', *columns], lines)}\n\n{row['measured']}"


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
