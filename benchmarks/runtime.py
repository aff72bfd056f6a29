"""NumPy straight from a compressed file against ONNX Runtime and PyTorch, and lookups against products.

    OMP_NUM_THREADS=1 python -m benchmarks.runtime [--students resnet20 ...] [--size 32]

Networks of 10 classes with first weights and random images, for speed depends on neither: as they are, with 16 values
per layer (`cluster`), with 16 of which 80 % are pruned first, and with codebooks (`product_quantize`). The last three
are entropy-coded. Each is written as `distill export --to runtime` does, and timed on one thread, batches of 1 and 32.
Largest differences from PyTorch's outputs are relative to the largest output.
"""

import argparse
import logging
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks._jobs import say
from distill import runtime
from distill.artifact import Artifact
from distill.compress import hook
from distill.console import quiet_libraries
from distill.export import onnx_file
from distill.export.runtime import written
from distill.measure.latency import timings
from distill.models.build import build_network

STUDENTS = ("lenet5", "resnet20", "shufflenet_v2", "mobilenet_v2")
SEED = 0
COLUMNS = ("network", "weights", "bytes", "of them graph", "load, ms", "difference", "NumPy, ms", "lookups, ms")
OTHERS = ("ONNX Runtime, ms", "PyTorch, ms")
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


def row(name: str, way: str, size: int, folder: Path) -> list[str]:
    """One network, compressed in one way."""
    artifact = compressed(fresh(name, 28 if name == "lenet5" else size), way)
    channels, size = artifact.network["channels"], 28 if name == "lenet5" else size
    inputs = torch.randn(32, channels, size, size, generator=torch.Generator().manual_seed(SEED))
    path = folder / "student.runtime.safetensors"
    path.write_bytes(written(artifact, inputs))
    start = time.perf_counter()
    network = runtime.load(path)
    loaded = 1000 * (time.perf_counter() - start)
    with torch.no_grad():
        expected = artifact.model(inputs).numpy()
    networks = [network] + ([runtime.load(path, lookups=True)] if way != "float32" else [])
    errors = [abs(one(inputs.numpy()) - expected).max() / abs(expected).max() for one in networks]
    runs: list[Callable[[Tensor], Tensor]] = [partial(_answer, one) for one in networks]
    session = onnx_file.session(onnx_file.serialize(artifact.model, inputs), threads=1)
    runs += [partial(onnx_file.answer, session), artifact.model]
    times = [_times(run, inputs) for run in runs]
    if way == "float32":
        times.insert(1, "")
    bytes_, graph = path.stat().st_size, path.stat().st_size - artifact.nbytes()
    return [name, way, f"{bytes_:,}", f"{graph:,}", f"{loaded:.0f}", f"{max(errors):.0e}", *times]


def _answer(network: runtime.Network, inputs: Tensor) -> Tensor:
    return torch.from_numpy(network(inputs.numpy()))


@torch.no_grad()
def _times(run: Callable[[Tensor], Tensor], inputs: Tensor) -> str:
    timed = timings(run, inputs, (1, 32))
    return " / ".join(f"{timed[key].median:.3g}" for key in ("batch1", "batch32"))


def main() -> None:
    """Compress, write, time and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", nargs="+", default=STUDENTS, metavar="NAME")
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    options = parser.parse_args()
    quiet_libraries()
    logging.getLogger("distill").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    say(f"{date.today()}, {platform.machine()}, one thread, NumPy {np.__version__}, PyTorch {torch.__version__}\n")
    say("| " + " | ".join([*COLUMNS, *OTHERS]) + " |")
    say("|" + "---|" * len([*COLUMNS, *OTHERS]))
    with tempfile.TemporaryDirectory() as folder:
        for name in options.students:
            for way in WAYS:
                say("| " + " | ".join(row(name, way, options.size, Path(folder))) + " |")


if __name__ == "__main__":
    main()
