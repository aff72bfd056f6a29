"""NumPy straight from a compressed file against ONNX Runtime and PyTorch, and lookups against products.

    OMP_NUM_THREADS=1 python -m benchmarks.runtime [--students resnet20 ...] [--size 32]

Networks of 10 classes with first weights and random images, for speed depends on neither: as they are, with 16 values
per layer (`cluster`), with 16 of which 80 % are pruned first, and with codebooks (`product_quantize`). The last three
are entropy-coded. Each is written as `distill export --to runtime` does, and timed on one thread, batches of 1 and 32.
Largest differences from PyTorch's outputs are relative to the largest output. Each network compressed in one way is a
line of ``benchmarks/results/runtime.jsonl``, and what is there is not measured again; `python -m benchmarks.tables`
makes the table of docs/artifact.md.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import _quartiles, _results
from benchmarks._command import command, described
from benchmarks._jobs import say
from benchmarks._results import RESULTS, Row, kept
from distill import runtime
from distill.artifact import Artifact
from distill.cli.arguments import positive
from distill.compress import hook
from distill.export import onnx_file
from distill.export.runtime import written
from distill.measure.latency import round_robin
from distill.models.build import build_network

FILE = RESULTS / "runtime.jsonl"
IDENTITY = ("network", "weights", "size")
STUDENTS = ("lenet5", "resnet20", "shufflenet_v2", "mobilenet_v2")
BATCHES = (1, 32)
SEED = 0
WAYS_TO_RUN = {"numpy": "NumPy, ms", "lookups": "lookups, ms", "onnx": "ONNX Runtime, ms", "pytorch": "PyTorch, ms"}
ENCODE: tuple[str, dict[str, object]] = ("encode", {})
WAYS: dict[str, list[tuple[str, dict[str, object]]]] = {
    "float32": [],
    "16 values": [("cluster", {"bits": 4}), ENCODE],
    "16 values, 80 % pruned": [("prune", {"sparsity": 0.8}), ("cluster", {"bits": 4}), ENCODE],
    "codebooks of 16": [("product_quantize", {"codebook_size": 16}), ENCODE],
}


def fresh(name: str, size: int) -> Artifact:
    """A network with its first weights."""
    torch.manual_seed(SEED)
    entry = {"name": name, "num_classes": 10, "channels": 3 if size != 28 else 1}
    entry |= {} if name == "lenet5" or name.startswith("resnet20") else {"small_images": True}
    return Artifact(build_network(entry).eval(), network=entry)


def compressed(artifact: Artifact, way: str) -> Artifact:
    """After the hooks of one of `WAYS`."""
    for name, settings in WAYS[way]:
        artifact = hook.find(name)(artifact, **settings)
    return artifact


def measure(name: str, way: str, size: int, folder: Path) -> Row:
    """One network, compressed in one way."""
    artifact = compressed(fresh(name, size), way)
    inputs = torch.randn(32, artifact.network["channels"], size, size, generator=torch.Generator().manual_seed(SEED))
    path = folder / "student.runtime.safetensors"
    path.write_bytes(written(artifact, inputs))
    start = time.perf_counter()
    network = runtime.load(path)
    loaded = 1000 * (time.perf_counter() - start)
    with torch.no_grad():
        expected = artifact.model(inputs).numpy()
    networks = {"numpy": network} | ({"lookups": runtime.load(path, lookups=True)} if way != "float32" else {})
    errors = [abs(one(inputs.numpy()) - expected).max() / abs(expected).max() for one in networks.values()]
    runs: dict[str, Callable[[Tensor], Tensor]] = {title: partial(_answer, one) for title, one in networks.items()}
    session = onnx_file.session(onnx_file.serialize(artifact.model, inputs), threads=1)
    runs |= {"onnx": partial(onnx_file.answer, session), "pytorch": artifact.model}
    return {
        "bytes": path.stat().st_size,
        "graph_bytes": path.stat().st_size - artifact.nbytes(),
        "load_ms": loaded,
        "difference": float(max(errors)),
        **times(runs, inputs),
        "versions": f"NumPy {np.__version__}, PyTorch {torch.__version__}",
    }


def _answer(network: runtime.Network, inputs: Tensor) -> Tensor:
    return torch.from_numpy(network(inputs.numpy()))


@torch.no_grad()
def times(runs: Mapping[str, Callable[[Tensor], Tensor]], inputs: Tensor) -> Row:
    """Milliseconds of each way to run one network, in turns."""
    found = round_robin(runs, inputs, BATCHES)
    ways = {way: _quartiles.fields(timings) for way, timings in found.timings.items()}
    row = {field: {way: own[field] for way, own in ways.items()} for field in ("milliseconds", "quartiles_ms")}
    return {**row, "waited": found.waited}


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """The table by its name on pages, if there are rows for it."""
    columns = ["network", "pixels", "weights", "bytes", "of them graph", "load, ms", "difference"]
    lines = [
        [
            *(row["network"], f"{row['size']} x {row['size']}", row["weights"]),
            *(f"{row['bytes']:,}", f"{row['graph_bytes']:,}", f"{row['load_ms']:.0f}", f"{row['difference']:.0e}"),
            *(_shown(row, way) for way in WAYS_TO_RUN),
        ]
        for row in rows
    ]
    versions = "; ".join(dict.fromkeys(row["versions"] for row in rows))
    text = _results.table([*columns, *WAYS_TO_RUN.values()], lines)
    below = f"{_results.measured(rows)}; one thread, {versions}{_quartiles.note(rows, text, 'ONNX Runtime')}"
    return {"runtime": f"{text}\n\n{below}"} if rows else {}


def _shown(row: Row, way: str) -> str:
    """Milliseconds at each batch size, compared with those of ONNX Runtime."""
    times = {key: f"{value:.3g}" for key, value in row["milliseconds"].get(way, {}).items()}
    if "quartiles_ms" in row and way != "onnx":
        own, onnx = (row["quartiles_ms"].get(name) for name in (way, "onnx"))
        times = {key: _quartiles.marked(text, own[key], onnx[key]) for key, text in times.items()}
    return " / ".join(times.values())


@command
def main() -> None:
    """Compress, write and time what is missing."""
    parser = described(__doc__)
    parser.add_argument("--students", nargs="+", default=STUDENTS, metavar="NAME")
    parser.add_argument("--size", type=positive, default=32, help="height and width of the images; lenet5 has 28")
    parser.add_argument("--results", type=Path, default=FILE)
    options = parser.parse_args()
    logging.getLogger("distill").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.students:
            for way in WAYS:
                size = 28 if name == "lenet5" else options.size
                named = {"network": name, "weights": way, "size": size}
                row = kept(options.results, named, partial(measure, name, way, size, Path(folder)))
                say(f"{name}, {way}: {row['milliseconds']}")


if __name__ == "__main__":
    main()
