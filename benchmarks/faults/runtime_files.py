"""Files for `distill.runtime`: bytes changed (``raw``); the header or the tensors changed, or nodes of the graph (each
again with right checksums).

Without a named error, outputs are those of the original file (``raw``), or at least computed. Images have the size that
the file was written for: how much a node computes is not limited.
"""

import base64
import json
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import zstandard
from safetensors.torch import load

from benchmarks.faults import artifacts
from benchmarks.faults._faults import Faults, WrongResultError
from benchmarks.faults._mutations import mutated, mutated_bytes
from distill import runtime
from distill.artifact.raw import to_raw
from distill.container import file_format
from distill.export.runtime import written

CHAINS = ("plain", "pruned", "cluster", "product", "svd")


class State(NamedTuple):
    """The valid files, and what they compute."""

    folder: Path
    files: list[bytes]
    outputs: dict[bytes, np.ndarray]


def prepare(folder: Path) -> State:
    """A small network in five storage formats, three of them coded."""
    made = [artifacts._compressed(artifacts.SMALL, artifacts.CHAINS[name]) for name in CHAINS]
    files = [written(artifact, artifacts.images()) for artifact in made]
    return State(folder, files, {file: _run(folder, file) for file in files})


def valid(state: State) -> None:
    """Every file computes what it did."""
    for file in state.files:
        if not np.array_equal(_run(state.folder, file), state.outputs[file]):
            raise WrongResultError("a valid file computes something else")


def attempt(state: State, kind: str, random: Random) -> None:
    """Damage a file, read and run it."""
    original = random.choice(state.files)
    changed = {"raw": mutated_bytes, "resealed": artifacts.resealed, "graph": _graph}[kind](original, random)
    outputs = _run(state.folder, changed)
    if kind == "raw" and not np.array_equal(outputs, state.outputs[original]):
        raise WrongResultError("damaged bytes compute something else")


def _run(folder: Path, file: bytes) -> np.ndarray:
    path = folder / "student.runtime.safetensors"
    path.write_bytes(file)
    with np.errstate(all="ignore"):
        return runtime.load(path)(artifacts.images().numpy())


def _graph(file: bytes, random: Random) -> bytes:
    """A few other values in the graph."""
    head, tensors = artifacts._head(file), load(file)
    graph = mutated(json.loads(zstandard.decompress(base64.b64decode(head["graph"]))), random)
    head["graph"] = base64.b64encode(zstandard.compress(json.dumps(graph).encode())).decode()
    return file_format.encode({name: to_raw(tensor) for name, tensor in tensors.items()}, head)


FAULTS = Faults({"raw": 0.3, "resealed": 0.3, "graph": 0.4}, 20_000, prepare, valid, attempt)
