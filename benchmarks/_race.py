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
Medians = dict[str, dict[Runner, dict[int, float]]]
"""Network -> runtime and threads -> batch size -> milliseconds."""


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


def race(networks: Mapping[str, Entrant], images: Tensor) -> Medians:
    """Median milliseconds of one run of a batch; every round runs every network once in every way."""
    runners: dict[tuple[str, Runner], Predict] = {
        (network, (runtime, threads)): make()
        for network, files in networks.items()
        for runtime, makers in files.items()
        for threads, make in makers.items()
    }
    times: dict[tuple[str, Runner, int], list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        for (network, runner), predict in runners.items():
            for key, timing in timings(predict, images, BATCHES, SECONDS).items():
                times[network, runner, int(key.removeprefix("batch"))].append(timing.median)
    medians: Medians = defaultdict(lambda: defaultdict(dict))
    for (network, runner, batch), values in times.items():
        medians[network][runner][batch] = statistics.median(values)
    return medians


def lines(medians: Medians, against: str) -> Iterator[str]:
    """A Markdown table: milliseconds, and how many times as fast as another network in the same runtime."""
    columns = [(runtime, threads, batch) for runtime in RUNTIMES for threads in THREADS for batch in BATCHES]
    titles = [f"{runtime}, {threads} threads, batch {batch}" for runtime, threads, batch in columns]
    yield f"| network | {' | '.join(titles).replace('1 threads', '1 thread')} |"
    yield "|---" * (1 + len(columns)) + "|"
    for network, runs in medians.items():
        cells = []
        for runtime, threads, batch in columns:
            took = runs.get((runtime, threads), {}).get(batch)
            cells.append(f"{took:.2f} ({medians[against][runtime, threads][batch] / took:.2f})" if took else "")
        yield f"| {network} | {' | '.join(cells)} |"


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
