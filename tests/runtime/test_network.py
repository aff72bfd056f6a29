"""One file holds the graph and the coded weights; what is wrong with it is one line that names it."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import zstandard
from torch import Tensor, nn

from distill import runtime
from distill.artifact import Artifact, open_artifact
from distill.artifact.artifact import state_of
from distill.compress.encode import encode
from distill.compress.low_rank.cp import cp
from distill.compress.low_rank.predict_parameters import predict_parameters
from distill.compress.low_rank.svd import svd
from distill.compress.low_rank.tensor_train import tensor_train
from distill.compress.low_rank.tt_matrix import tt_matrix
from distill.compress.low_rank.tucker import tucker
from distill.compress.quantization.int8 import int8
from distill.compress.quantization.quantize import quantize
from distill.compress.sharing.cluster import cluster
from distill.compress.sharing.product_quantize import product_quantize
from distill.container.raw import Raw
from distill.errors import ArtifactError, ExportError
from distill.export.graph import graph_of
from distill.export.runtime import written
from distill.runtime.graph import Graph, Node
from distill.runtime.lookups import Shared
from tests.compress import nets


@pytest.fixture(scope="module")
def graph() -> str:
    artifact = nets.artifact()
    return graph_of(artifact.model, nets.images(), state_of(artifact.model)).to_text()


@pytest.fixture
def save(tmp_path: Path, graph: str) -> Callable[[Artifact], Path]:
    def saved(artifact: Artifact, other: str | None = None) -> Path:
        path = tmp_path / "student.runtime.safetensors"
        path.write_bytes(artifact.to_bytes(graph if other is None else other))
        return path

    return saved


def close(network: runtime.Network, model: nn.Module) -> None:
    with torch.no_grad():
        for count in (1, 4):
            expected = model(nets.images(count)).numpy()
            np.testing.assert_allclose(network(nets.images(count).numpy()), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("hook", [lambda a: a, quantize, lambda a: encode(quantize(a)), lambda a: encode(cluster(a))])
def test_weights_stay_coded_in_the_file(hook: Callable[[Artifact], Artifact], save: Callable[..., Path]) -> None:
    artifact = hook(nets.artifact())
    path = save(artifact)
    close(runtime.load(path), artifact.model)
    assert path.stat().st_size - artifact.nbytes() < 2000
    again = open_artifact(path, nets.ALLOW)  # it is an artifact still
    assert again.to_bytes() == artifact.to_bytes()


def test_activations_on_integers_are_those_of_pytorch(tmp_path: Path) -> None:
    artifact = int8(nets.artifact(), nets.calibration(), lambda model: 1.0)
    path = tmp_path / "student.runtime.safetensors"
    path.write_bytes(written(artifact, nets.images()))
    close(runtime.load(path), artifact.model)


@pytest.mark.parametrize("hook", [cluster, product_quantize, lambda a: product_quantize(a, residual=1)])
def test_lookups_compute_the_same(hook: Callable[[Artifact], Artifact], save: Callable[..., Path]) -> None:
    artifact = hook(nets.artifact())
    network = runtime.load(save(artifact), lookups=True)
    coded = {name for name, value in network.values.items() if isinstance(value, Shared)}
    assert {"point.weight", "kernel.weight", "tied.weight", "head.weight"} <= coded
    assert "depthwise.weight" not in coded
    close(network, artifact.model)


@pytest.mark.parametrize("hook", [cp, predict_parameters, svd, tensor_train, tt_matrix, tucker])
def test_factorised_layers_are_those_of_pytorch(hook: Callable[..., Artifact], tmp_path: Path) -> None:
    """Some keep cores, and compute their weights from them."""
    artifact = hook(nets.artifact(), lambda model: 1.0, nets.calibration(), max_params=0.95)
    path = tmp_path / "student.runtime.safetensors"
    path.write_bytes(written(artifact, nets.images()))
    close(runtime.load(path), artifact.model)


@pytest.mark.parametrize(
    "factor", [lambda inputs: 2 if inputs.sum().item() else 1, lambda inputs: 2 * torch.special.i0(inputs * 0)]
)
def test_a_trained_form_is_traced_as_the_file_has_it(factor: Callable[[Tensor], Any], tmp_path: Path) -> None:
    """Where torch.export or the runtime cannot follow a layer, its plain form is taken, and what the file lacks is in
    the graph."""

    class Doubling(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs * factor(inputs)

        def deploy(self) -> nn.Module:
            layer = nn.Conv2d(1, 1, 1, bias=False)
            nn.init.constant_(layer.weight, 2)
            return layer

    artifact = Artifact(nn.Sequential(nn.Conv2d(1, 1, 3), Doubling()).eval(), network=nets.ENTRY)
    path = tmp_path / "student.safetensors"
    path.write_bytes(written(artifact, nets.images()))
    with torch.no_grad():
        expected = artifact.model(nets.images()).numpy()
    np.testing.assert_allclose(runtime.load(path)(nets.images().numpy()), expected, atol=1e-5)


class Computed(nn.Module):
    """One function of a map."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.head = function, nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(3 * x))


@pytest.mark.parametrize(
    "function",
    [
        nn.Hardtanh(),
        nn.Hardtanh(-1, 2),
        nn.ReLU6(),
        lambda x: x / (1 + x.norm(p=torch.inf, dim=1, keepdim=True)),
        lambda x: x / (1 + x.norm(p=-torch.inf, dim=3, keepdim=True)),
        lambda x: x + torch.linalg.vector_norm(x.relu(), 0, dim=3, keepdim=True),
        lambda x: x.roll(5),
        lambda x: x.roll((1, 2), (2, 3)),
        lambda x: torch.div(x, 0.7, rounding_mode="floor"),
        lambda x: torch.div(x, x.abs() + 0.2, rounding_mode="trunc"),
        lambda x: x.scatter(3, x[..., :4].argmax(3, keepdim=True), 0.5),
    ],
)
def test_settings_of_operators_are_kept(function: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    path, model = tmp_path / "student.runtime.safetensors", Computed(function).eval()
    path.write_bytes(written(Artifact(model), nets.images()))
    close(runtime.load(path), model)


def test_an_operator_that_there_is_not_is_named(save: Callable[..., Path]) -> None:
    class Strange(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return torch.special.i0(inputs)

    with pytest.raises(ExportError, match="Strange computes special_i0, for which the runtime has no operator"):
        graph_of(Strange(), nets.images(), {})
    foreign = Graph((Node("special_i0", {"input": "%0"}),), "%1").to_text()
    with pytest.raises(ArtifactError, match=r"student\.runtime\.safetensors: the runtime has no operator special_i0"):
        runtime.load(save(nets.artifact(), foreign))


@pytest.mark.parametrize(
    ("nodes", "output", "what"),
    [
        ([Node("relu", {"input": "%2"}), Node("relu", {"input": "%0"})], "%2", r"node 1 \(relu\) reads %2"),
        ([Node("relu", {"input": "%0"})], "%7", "its output '%7' is not computed"),
        ([Node("add", {"input": "%0", "other": "gone"})], "%1", "tensor 'gone', which is not in the file"),
        (
            [Node("relu", {"input": ["%0", {"texts": "same"}]})],
            "%1",
            r"node 1 \(relu\) has an argument that is no value",
        ),
        ([Node("relu", {"inputs": "head.bias"}), Node("relu", {"input": "%0"})], "%2", r"node 1 \(relu\) of the graph"),
    ],
)
def test_a_graph_that_is_impossible_is_refused(
    nodes: list[Node], output: str, what: str, save: Callable[..., Path]
) -> None:
    with pytest.raises(ArtifactError, match=what) as caught:
        runtime.load(save(nets.artifact(), Graph(tuple(nodes), output).to_text()))
    assert "student.runtime.safetensors" in str(caught.value)


def test_inputs_that_do_not_fit_are_named(graph: str, save: Callable[..., Path]) -> None:
    with pytest.raises(ArtifactError, match=r"reads inputs of 1x24x24 \(channels, height, width\), not of 3x24x24"):
        runtime.load(save(nets.artifact()))(np.zeros((1, 3, 24, 24), np.float32))
    any_size = replace(Graph.from_text(graph), input=None).to_text()
    with pytest.raises(ArtifactError, match=r"node \d+ \(conv2d\) of the graph cannot be computed"):
        runtime.load(save(nets.artifact(), any_size))(np.zeros((1, 3, 24, 24), np.float32))


def test_other_sizes_are_computed_right_or_refused(tmp_path: Path) -> None:
    """Where a map is enlarged to the size of another, the graph has that size in it."""

    class Enlarging(nn.Module):
        def forward(self, pair: Tensor) -> Tensor:
            return F.interpolate(F.max_pool2d(pair[:, :3], 2), pair.shape[2:], mode="bilinear")

    path, other = tmp_path / "student.runtime.safetensors", torch.randn(2, 1, 33, 47)
    path.write_bytes(written(nets.artifact(), nets.images()))
    with torch.no_grad():
        expected = nets.artifact().model(other).numpy()
    np.testing.assert_allclose(runtime.load(path)(other.numpy()), expected, rtol=0, atol=1e-4)
    path.write_bytes(written(Artifact(Enlarging().eval()), torch.zeros(1, 6, 32, 40)))
    assert runtime.load(path)(np.zeros((2, 6, 32, 40), np.float32)).shape == (2, 3, 32, 40)
    with pytest.raises(ArtifactError, match=r"reads inputs of 6x32x40 \(channels, height, width\), not of 6x33x47"):
        runtime.load(path)(np.zeros((2, 6, 33, 47), np.float32))


def test_a_graph_of_an_earlier_version_is_read(graph: str, save: Callable[..., Path]) -> None:
    content = json.loads(zstandard.decompress(base64.b64decode(graph)))
    assert content.pop("input") == [1, 24, 24]
    earlier = base64.b64encode(zstandard.compress(json.dumps(content).encode())).decode()
    close(runtime.load(save(nets.artifact(), earlier)), nets.artifact().model)
    for size in (24, [1, 0, 24], [1, "24", 24]):
        odd = base64.b64encode(zstandard.compress(json.dumps({**content, "input": size}).encode())).decode()
        with pytest.raises(ArtifactError, match=r"student\.runtime\.safetensors has impossible content"):
            runtime.load(save(nets.artifact(), odd))


def test_a_plain_artifact_says_what_to_do(tmp_path: Path) -> None:
    nets.artifact().save(tmp_path / "student.safetensors")
    with pytest.raises(ArtifactError, match=r"holds no graph.*export .*student\.safetensors --to runtime"):
        runtime.load(tmp_path / "student.safetensors")


def test_damage_is_noticed(save: Callable[..., Path]) -> None:
    path = save(encode(quantize(nets.artifact())))
    content, random = path.read_bytes(), Random(0)
    for _ in range(100):
        damaged = bytearray(content)
        damaged[random.randrange(len(content))] ^= random.randrange(1, 256)
        length = random.choice((len(content), random.randrange(len(content))))
        path.write_bytes(bytes(damaged[:length]))
        with pytest.raises(ArtifactError, match=r"student\.runtime\.safetensors"):
            runtime.load(path)


def test_a_graph_of_anybody_is_a_network_or_a_named_error(graph: str, save: Callable[..., Path]) -> None:
    """Behind right checksums: nodes, arguments and numbers that somebody changed."""
    random, original = Random(1), Graph.from_text(graph)
    for _ in range(60):
        nodes = [Node(node.operator, dict(node.arguments)) for node in original.nodes]
        node = random.choice(nodes)
        key = random.choice(sorted(node.arguments))
        node.arguments[key] = random.choice([None, -1, 0, 7, "%0", [3], [], {"text": "x"}, "head.bias", True, 1e30])
        path = save(nets.artifact(), Graph(tuple(nodes), original.output, original.constants).to_text())
        message = "its graph computes something else"
        try:
            runtime.load(path)(nets.images().numpy())
        except ArtifactError as error:
            message = str(error)
        assert "graph" in message or path.name in message


def test_a_constant_of_one_value_is_read_again() -> None:
    mask = Raw("float32", (256, 256), np.ones((256, 256), np.float32).tobytes())
    again = Graph.from_text(Graph((), "%0", {"mask": mask}).to_text())
    assert np.array_equal(again.constants["mask"].array(), mask.array())


def test_a_graph_that_claims_much_is_not_unpacked(save: Callable[..., Path]) -> None:
    huge = Graph(tuple(Node("relu", {"input": "%0"}) for _ in range(400_000)), "%1").to_text()
    with pytest.raises(ArtifactError, match="once decompressed"):
        runtime.load(save(nets.artifact(), huge))
