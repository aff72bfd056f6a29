"""Artifacts: bytes of the file changed (``raw``); changed and sealed with right checksums (``resealed``); and changed
within the packed block or a coded stream, again with right checksums (``packed``).

Without a named error, the network is the original one (``raw``), or at least one that runs, and whose own file gives
its numbers again.
"""

import json
import struct
import zlib
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
import zstandard
from safetensors.torch import load
from torch import Tensor, nn

from benchmarks.faults._faults import Faults, WrongResultError
from benchmarks.faults._mutations import mutated, mutated_bytes
from distill.artifact import Artifact, open_artifact
from distill.artifact.raw import to_raw
from distill.artifact.step import Step
from distill.batch import Batch
from distill.compress import hook
from distill.container import file_format
from distill.container.file_format import PACKED
from distill.container.raw import SIZES, Raw
from distill.models.build import build_network
from distill.registry import injected

CHAINS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "plain": [],
    "quantized": [("quantize", {"granularity": "group", "group_size": 8})],
    "tensor_train": [
        ("tensor_train", {"max_error": 0.6}),
        ("quantize", {"bits": 4, "rounding": "nearest"}),
        ("encode", {}),
    ],
    "tt_matrix": [("tt_matrix", {"max_error": 0.9})],
    "predict_parameters": [("predict_parameters", {"max_error": 0.9}), ("quantize", {}), ("encode", {})],
    "svd": [("svd", {"max_error": 0.5}), ("prune", {"sparsity": 0.7}), ("encode", {})],
    "spliced": [("prune", {"pattern": "1:2", "splice": True})],
    "pruned": [("prune", {}), ("quantize", {}), ("encode", {"codec": "huffman"})],
    "channels": [
        ("prune_channels", {"saliency": "magnitude"}),
        ("fixed_point", {"bits": 12}),
        ("encode", {"codec": "zstd"}),
    ],
    "cluster": [("cluster", {"shared": True}), ("encode", {})],
    "product": [("product_quantize", {"residual": 1}), ("encode", {})],
    "cartesian": [("cartesian_quantize", {})],
    "hashed": [("hash_weights", {"ratio": 0.1}), ("encode", {})],
    "powers": [("power_of_two", {}), ("encode", {})],
    "int8": [("int8", {}), ("encode", {})],
}
SMALL = {"name": "benchmarks.faults._network:Small", "width": 8, "depth": 1}
STUDENT = {"name": "mobilenet_v2", "num_classes": 10, "channels": 1, "width": 0.25, "small_images": True}
ALLOW = ["benchmarks.faults._network"]
STEP = Step("student", 100, 200, 300, {"val/accuracy": 0.9}, {"batch1": 0.3}, 1.5)


class State(NamedTuple):
    """The valid files, and what their networks compute."""

    folder: Path
    files: list[bytes]
    encoded: list[bytes]
    outputs: dict[bytes, Tensor]


def images() -> Tensor:
    return torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def prepare(folder: Path) -> State:
    """A small network in every storage format, and a student of ours, whose settings are damaged too."""
    made = [_compressed(SMALL, chain) for chain in CHAINS.values()]
    made.append(_compressed(STUDENT, CHAINS["pruned"]))
    files = [artifact.to_bytes() for artifact in made]
    outputs = {file: _run(artifact.model) for file, artifact in zip(files, made, strict=True)}
    return State(folder, files, [f for f, artifact in zip(files, made, strict=True) if artifact.encoded], outputs)


def _compressed(network: dict[str, Any], chain: list[tuple[str, dict[str, Any]]]) -> Artifact:
    torch.manual_seed(0)
    model = build_network(network, ALLOW).eval()
    artifact = Artifact(model, history=(STEP,), network=network, about={"classes": ["a", "b"]})
    batch = Batch(images(), torch.arange(2), torch.arange(2))
    for kind, options in chain:
        given = {
            "artifact": artifact,
            "calibration": [batch],
            "evaluate": lambda model: 1.0,
            "progress": 1.0,
            "task_loss": nn.functional.cross_entropy,
        }
        component = hook.find(kind)
        artifact = component(*(given[argument] for argument in injected(component)), **options)
    return artifact


def valid(state: State) -> None:
    """Every file is read, and its network is the one that was written."""
    for file in state.files:
        if not torch.equal(_run(_opened(state, file).model), state.outputs[file]):
            raise WrongResultError("a valid file gives another network")


def attempt(state: State, kind: str, random: Random) -> None:
    """Damage a file and read it."""
    original = random.choice(state.encoded if kind == "packed" else state.files)
    changed = {"raw": mutated_bytes, "resealed": resealed, "packed": repacked}[kind](original, random)
    artifact = _opened(state, changed)
    if kind == "raw":
        if not torch.equal(_run(artifact.model), state.outputs[original]):
            raise WrongResultError("damaged bytes gave another network")
        return
    again = _opened(state, artifact.to_bytes())
    first, second = (one.model.state_dict() for one in (artifact, again))
    if not all(torch.equal(first[name].nan_to_num(), second[name].nan_to_num()) for name in first):
        raise WrongResultError("the file of what was read gives other numbers")


def _opened(state: State, content: bytes) -> Artifact:
    path = state.folder / "student.safetensors"
    path.write_bytes(content)
    return open_artifact(path, ALLOW)


@torch.no_grad()
def _run(model: nn.Module) -> Tensor:
    return model(images())


def resealed(file: bytes, random: Random) -> bytes:
    """The header or the tensors changed, with right checksums."""
    head, tensors = _head(file), load(file)
    if random.random() < 0.6:
        head = mutated(head, random)
    else:
        for name in random.sample(sorted(tensors), min(len(tensors), random.choice((1, 2)))):
            tensors[name] = _other_tensor(tensors[name], random)
        if random.random() < 0.3:
            tensors[random.choice(["x", "", "/", "conv1.weight/codes"])] = torch.zeros(3)
    return file_format.encode(
        {name: to_raw(tensor) for name, tensor in tensors.items()}, head if isinstance(head, dict) else {}
    )


def repacked(file: bytes, random: Random) -> bytes:
    """The index, the data or a coded stream within the packed block changed, with right checksums."""
    head, block = _head(file), load(file)[PACKED].numpy().tobytes()
    (length,) = struct.unpack_from("<I", block)
    index = json.loads(zstandard.decompress(zstandard.FRAME_HEADER + block[4 : 4 + length]))
    body = block[4 + length + 4 * len(index["tensors"]) :]
    how = random.random()
    if how < 0.5:
        index = mutated(index, random)
    elif how < 0.8:
        body = mutated_bytes(body, random)
    else:
        body = _other_stream(index, body, random)
    content = json.dumps(index).encode()
    frame = zstandard.compress(content).removeprefix(zstandard.FRAME_HEADER)
    if random.random() < 0.05:  # a bomb: zeros without end in few bytes
        frame = zstandard.compress(content + bytes(2 ** random.randrange(20, 27))).removeprefix(zstandard.FRAME_HEADER)
    data = struct.pack("<I", len(frame)) + frame + _checksums(index, body) + body
    return file_format.encode({PACKED: Raw("uint8", (len(data),), data)}, head)


def _other_stream(index: Any, body: bytes, random: Random) -> bytes:
    """A coded stream changed behind its checksum, which is made right; its length stays."""
    at, streams = 0, []
    for _, _, parts in index["tensors"]:
        for part, _, shape, lengths in parts:
            size = 0 if isinstance(lengths, int) else sum(length or _count(shape) for length in lengths)
            if part == "data" and lengths == [0]:
                streams.append((at, size))
            at += size
    if not streams:
        return body
    at, size = random.choice(streams)
    stream = bytearray(body[at : at + size])
    for _ in range(random.choice((1, 2, 5))):
        stream[random.randrange(4, min(size, random.choice((12, 40, size))))] = random.randrange(256)
    stream[:4] = zlib.crc32(stream[4:]).to_bytes(4, "little")
    return body[:at] + bytes(stream) + body[at + size :]


def _checksums(index: Any, body: bytes) -> bytes:
    """Those that fit, as far as the index can be followed."""
    sums, at = [], 0
    try:
        for _, _, parts in index["tensors"]:
            owned = [(shape, lengths) for _, _, shape, lengths in parts if not isinstance(lengths, int)]
            size = sum(length or _count(shape) for shape, lengths in owned for length in lengths)
            sums.append(zlib.crc32(body[at : at + size]))
            at += size
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError):
        pass
    return struct.pack(f"<{len(sums)}I", *sums)


def _count(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _other_tensor(tensor: Tensor, random: Random) -> Tensor:
    how = random.choice(("type", "shape", "values", "less"))
    if how == "type":
        return tensor.to(getattr(torch, random.choice(sorted(SIZES))))
    if how == "shape":
        return tensor.reshape(random.choice(([-1], [1, -1], [-1, 1], [tensor.numel()])))
    if how == "less":
        return tensor.flatten()[: random.randrange(tensor.numel() + 1)]
    values = tensor.clone().flatten()
    for _ in range(8 if values.numel() else 0):
        value = random.choice((0, 1, -1, 127, 255, 3e38, float("nan"), float("inf")))
        at = random.randrange(values.numel())
        values[at] = value if values.is_floating_point() else int(min(max(value, -128), 127)) if value == value else 0
    return values.view(tensor.shape)


def _head(file: bytes) -> dict[str, Any]:
    size = int.from_bytes(file[:8], "little")
    head = json.loads(json.loads(file[8 : 8 + size])["__metadata__"][file_format.KEY])
    return {key: value for key, value in head.items() if key not in ("checksum", "checksums", "format")}


FAULTS = Faults({"raw": 0.3, "resealed": 0.35, "packed": 0.35}, 20_000, prepare, valid, attempt)
