"""Whatever a file holds, reading it gives its network or an ArtifactError that names the file, in bounded memory."""

import json
import struct
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.faults import artifacts
from distill.artifact import Artifact, open_artifact, read_tensor, reading
from distill.artifact.raw import to_raw
from distill.artifact.storage import Encoded
from distill.compress.encode import encode
from distill.compress.quantization._quantized import Quantized
from distill.compress.quantization.quantize import quantize
from distill.compress.sharing.cluster import cluster
from distill.container import byte_planes, file_format
from distill.container.packed import Block, pack
from distill.container.raw import Raw
from distill.errors import ArtifactError
from distill.models.build import build_network, without_published_weights
from tests.compress import nets


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> artifacts.State:
    chains = {name: artifacts.CHAINS[name] for name in ("plain", "quantized", "svd", "cluster", "powers")}
    made = [artifacts._compressed(artifacts.SMALL, chain) for chain in chains.values()]
    files = [artifact.to_bytes() for artifact in made]
    outputs = {file: artifacts._run(artifact.model) for file, artifact in zip(files, made, strict=True)}
    return artifacts.State(tmp_path_factory.mktemp("faults"), files, files[2:], outputs)


@pytest.mark.parametrize("kind", ["raw", "resealed", "packed"])
@settings(max_examples=80, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_a_damaged_file_gives_its_network_or_a_named_error(kind: str, seed: int, state: artifacts.State) -> None:
    message = str(state.folder / "student.safetensors")
    try:
        artifacts.attempt(state, kind, Random(seed))
    except ArtifactError as error:
        message = str(error)
    assert str(state.folder / "student.safetensors") in message


def test_every_hooks_network_is_measured_without_memory() -> None:
    """Structure changes are built on the meta device too, so that sizes are known before memory is asked for."""
    for chain in ("tensor_train", "tt_matrix", "svd", "channels", "int8"):
        artifact = artifacts._compressed(artifacts.SMALL, artifacts.CHAINS[chain])
        head = artifacts._head(artifact.to_bytes())
        shapes = reading._shapes(head, artifacts.ALLOW)
        assert shapes is not None
        assert {name: shape for name, (shape, _) in shapes.items()} == {
            name: tuple(tensor.shape) for name, tensor in artifact.model.state_dict().items()
        }


@pytest.mark.parametrize("before", ["nothing", "quantize", "encode"])
def test_one_tensor_is_read_alone(before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = nets.artifact()
    artifact = quantize(artifact) if before != "nothing" else artifact
    artifact = encode(artifact) if before == "encode" else artifact
    artifact.save(tmp_path / "student.safetensors")
    decoded: list[object] = []
    decompress = byte_planes.decompress
    monkeypatch.setattr(byte_planes, "decompress", lambda *a: decoded.append(a) or decompress(*a))
    monkeypatch.setattr(reading, "build_network", None)  # not needed
    for name in ("kernel.weight", "norm.running_var", "head.bias"):
        assert torch.equal(read_tensor(tmp_path / "student.safetensors", name), artifact.model.state_dict()[name])
    assert len(decoded) <= (6 if before == "encode" else 0)
    with pytest.raises(
        ArtifactError, match=r"student\.safetensors: there is no tensor 'kernel'; there are: .*stem\.weight"
    ):
        read_tensor(tmp_path / "student.safetensors", "kernel")


def test_parts_that_are_equal_are_kept_once() -> None:
    values = Raw("float32", (100,), np.arange(100, dtype="<f4").tobytes())
    one, both = (len(pack({str(k): (None, {"": values}) for k in range(count)})) for count in (1, 2))
    assert both - one < 30
    block = Block(pack({str(k): (None, {"": values}) for k in range(3)}))
    assert all(block.read(name)[1][""] == values for name in "012")
    shared = encode(cluster(nets.artifact(), shared=True))
    entries = Block(shared_block(shared)).entries.values()
    assert sum(part.name == "inner.values" and part.same is None for entry in entries for part in entry.parts) == 1


def shared_block(artifact: Artifact) -> bytes:
    tensors, _ = file_format.decode(artifact.to_bytes(), "")
    return bytes(tensors[file_format.PACKED].data)


def test_a_damaged_tensor_of_an_encoded_file_is_named() -> None:
    content = bytearray(encode(quantize(nets.artifact())).to_bytes())
    content[-3] ^= 1
    with pytest.raises(ArtifactError, match=r"has been altered: tensor 'head\.bias' is damaged"):
        file_format.decode(bytes(content), "student.safetensors")


def test_a_small_file_does_not_stand_for_a_large_network(tmp_path: Path) -> None:
    head = {"network": {"name": "vit_h_14", "num_classes": 1000}, "plans": [], "about": {}, "history": [], "forms": []}
    path = tmp_path / "student.safetensors"
    path.write_bytes(file_format.encode({"x": to_raw(torch.zeros(20_000))}, head))
    with pytest.raises(
        ArtifactError, match=r"its network takes 2,41\d MiB, but a file of 80,\d\d\d bytes may stand for"
    ):
        open_artifact(path)


def test_a_network_that_is_measured_while_it_is_built_is_refused_too(tmp_path: Path) -> None:
    network = {"name": "regnet_y_400mf", "num_classes": 700_000}
    head = {"network": network, "plans": [], "about": {}, "history": [], "forms": []}
    path = tmp_path / "student.safetensors"
    path.write_bytes(file_format.encode({"x": to_raw(torch.zeros(20))}, head))
    with pytest.raises(ArtifactError, match=r"a network of more than 6\d MiB, for which the file is too small"):
        open_artifact(path)


@pytest.mark.parametrize(
    "network",
    [
        {"name": "mnasnet0_5", "weights": "DEFAULT"},
        {"name": "lraspp_mobilenet_v3_large", "num_classes": 3},
        {"name": "lraspp_mobilenet_v3_large", "num_classes": 3, "weights_backbone": "IMAGENET1K_V1"},
    ],
    ids=lambda network: " ".join(map(str, network.values())),
)
def test_opening_a_file_fetches_nothing(network: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: Any, **__: Any) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    model = build_network(without_published_weights(network)).eval()
    data = Artifact(model, network=network).to_bytes()
    opened = reading.read_artifact(data, "student.safetensors").model
    assert all(map(torch.equal, opened.state_dict().values(), model.state_dict().values()))


def test_codes_are_not_decoded_where_they_are_more_than_the_tensor(tmp_path: Path) -> None:
    for codec in ("zlib", "ans zlib", "bitplane zlib"):
        codes = torch.zeros(2**22, dtype=torch.int64)
        large = Encoded.of(Quantized(codes=codes, scales=torch.ones(1), bits=8, axis=None), codec)
        with pytest.raises(ArtifactError, match="claims the shape"):
            large.validate((12, 1, 3, 3))
        assert Encoded.of(replace(large.inner, codes=codes), codec).codes().equal(codes)


def test_a_network_of_endless_depth_is_refused(tmp_path: Path) -> None:
    artifact = artifacts._compressed({**artifacts.SMALL, "depth": 1}, [])
    path = tmp_path / "student.safetensors"
    path.write_bytes(Artifact(artifact.model, network={**artifacts.SMALL, "depth": 10**9}).to_bytes())
    with pytest.raises(ArtifactError, match="a network of more than 20000 parameters and modules"):
        open_artifact(path, artifacts.ALLOW)


def index_of(claimed: int) -> bytes:
    """A block of one tensor that claims so many values in a few bytes."""
    index = {"forms": [], "tensors": [["stem.weight", -1, [["", "float32", [claimed], [9, 9, 9, 9]]]]]}
    frame = zstandard.compress(json.dumps(index).encode()).removeprefix(zstandard.FRAME_HEADER)
    return struct.pack("<I", len(frame)) + frame + bytes(4) + bytes(36)


@pytest.mark.parametrize("claimed", [10**6, 10**9, 2**39, 2**41])
def test_claimed_sizes_are_checked_before_memory_is_asked_for(claimed: int, tmp_path: Path) -> None:
    head = {"network": nets.ENTRY, "plans": [], "about": {}, "history": []}
    content = index_of(claimed)
    block = Raw("uint8", (len(content),), content)
    path = tmp_path / "student.safetensors"
    path.write_bytes(file_format.encode({file_format.PACKED: block}, head))
    for read in (lambda: open_artifact(path, nets.ALLOW), lambda: read_tensor(path, "stem.weight")):
        with pytest.raises(ArtifactError, match=r"student\.safetensors"):
            read()


def test_a_bomb_in_the_index_is_not_unpacked(tmp_path: Path) -> None:
    frame = zstandard.compress(bytes(2**24)).removeprefix(zstandard.FRAME_HEADER)
    with pytest.raises(ValueError, match=r"index of \d+ bytes claims 16777216 once decompressed"):
        Block(struct.pack("<I", len(frame)) + frame)
    with pytest.raises(ValueError, match="a zstd frame with more than 10 bytes"):
        byte_planes.unzip(zstandard.compress(bytes(2**24)).removeprefix(zstandard.FRAME_HEADER), 10)
