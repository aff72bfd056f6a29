"""Networks on integers in ONNX Runtime and OpenVINO: which kernels run, what the files hold, what they answer."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from distill.artifact import Artifact
from distill.batch import Batch
from distill.compress.quantization.int8 import int8
from distill.errors import ExportError
from distill.export import exporter, onnx_file, refuse_missing
from distill.export.exported import Exported, compared
from distill.export.onnx_integers import prefer_codes
from distill.tasks.classification import Classification
from tests.compress.quantization.networks import Joined
from tests.nets import TEN_CLASSES

TASK = Classification(TEN_CLASSES)
TYPES = {code: name for name, code in TensorProto.DataType.items()}


def samples() -> list[Batch]:
    torch.manual_seed(1)
    return [Batch(torch.randn(size, 1, 8, 8), torch.zeros(size), torch.arange(size)) for size in (16, 5)]


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    torch.manual_seed(0)
    model = Joined()
    model.block.conv.weight.data[1] = 0.0  # a channel of zeros still has a bias
    with torch.no_grad():
        model(samples()[0].inputs)
    return int8(Artifact(model.eval()), samples(), lambda model: 1.0)


@pytest.fixture(scope="module")
def made(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exporter.find("onnx")(artifact, tmp_path_factory.mktemp("onnx"), samples(), TASK)


def operators(path: Path, folder: Path) -> Counter[str]:
    """What ONNX Runtime makes of a file."""
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(folder / "optimised.onnx")
    settings.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


class Disagreeing(Classification):
    """Small differences that change half of the predictions."""

    def agreement(self, output: torch.Tensor, reference: torch.Tensor) -> float:
        return 0.5


class Agreeing(Classification):
    """Whatever is output."""

    def agreement(self, output: torch.Tensor, reference: torch.Tensor) -> float:
        return 1.0


def test_outputs_within_the_tolerance_that_decide_otherwise_are_named_as_such(artifact: Artifact) -> None:
    model, task = artifact.model, Disagreeing(TEN_CLASSES)
    words = (model, lambda inputs: model(inputs) * 1.02, samples(), task, Path("student.onnx"), "export.onnx.tolerance")
    disagrees = (
        r"^student.onnx does not agree with PyTorch: .* 50.0 %, but integer layers need 95 %.* difference of 0.02"
    )
    with pytest.raises(ExportError, match=disagrees) as error:
        compared(*words, None)
    assert "but tolerance is" not in str(error.value)
    difference, agreement = compared(*words, 0.1)
    assert difference == pytest.approx(0.02, rel=1e-2)
    assert agreement == 0.5


@pytest.mark.parametrize(("outliers", "refused"), [(10, False), (11, True), (None, True)])
def test_one_value_in_a_hundred_may_differ_by_more(artifact: Artifact, outliers: int | None, refused: bool) -> None:
    model, task = artifact.model, Agreeing(TEN_CLASSES)
    images = samples()[0].inputs[:1].repeat(99, 1, 1, 1)  # (1 + 99) x 10 values

    def predict(inputs: torch.Tensor) -> torch.Tensor:
        output = model(inputs).clone()
        output[:outliers, 0] += 3 * output.abs().max() * (len(inputs) > 1)
        return output

    words = (
        model,
        predict,
        [Batch(images, torch.zeros(99), torch.arange(99))],
        task,
        Path("student.onnx"),
        "export.onnx.tolerance",
        None,
    )
    if refused:
        with pytest.raises(ExportError, match="by 3 of the largest output, but tolerance is 0.1"):
            compared(*words)
    else:
        assert compared(*words) == (pytest.approx(3), 1.0)


def test_onnx_runtime_runs_integer_kernels(made: Exported, tmp_path: Path) -> None:
    kernels = operators(made.path, tmp_path)
    assert (kernels["QLinearConv"], kernels["QGemm"], kernels["QLinearAdd"]) == (4, 1, 1)
    assert not {"Conv", "Gemm", "Add", "QLinearConcat"} & kernels.keys()


def test_weights_are_signed_and_activations_unsigned(made: Exported) -> None:
    graph = onnx.load(made.path).graph
    types = {constant.name: TYPES[constant.data_type] for constant in graph.initializer}
    read = {node.output[0]: types.get(node.input[0]) for node in graph.node if node.op_type == "DequantizeLinear"}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert [read[node.input[1]] for node in layers] == ["INT8"] * 5
    assert [read[node.input[2]] for node in layers] == ["INT32"] * 5
    zeros = [types[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert set(zeros) == {"UINT8"}


def test_it_answers_what_the_artifact_does(made: Exported, artifact: Artifact) -> None:
    assert made.difference < 0.03
    assert made.agreement == 1.0
    inputs = samples()[0].inputs
    with torch.no_grad():
        wanted = artifact.model(inputs)
    torch.testing.assert_close(made.predict(inputs), wanted, rtol=0, atol=float(wanted.abs().max()) * 0.03)
    torch.testing.assert_close(made.single()(inputs), made.predict(inputs))


def test_bytes_are_a_quarter() -> None:
    model = nn.Sequential(nn.Conv2d(1, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.Flatten(), nn.Linear(1024, 10))
    done = int8(Artifact(model.eval()), samples(), lambda model: 1.0)
    size = len(onnx_file.serialize(done.model, samples()[0].inputs))
    assert size < 0.3 * 4 * sum(parameter.numel() for parameter in model.parameters())


def test_moving_codes_changes_no_answer() -> None:
    """DequantizeLinear -> Split -> Concat with itself -> Reshape, next to a layer with another grid."""
    constants = {"scale": np.float32(0.5), "other": np.float32(0.25), "zero": np.uint8(3)}
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["values"]),
        helper.make_node("Split", ["values"], ["left", "right"], axis=1, num_outputs=2),
        helper.make_node("Concat", ["right", "left"], ["swapped"], axis=1),
        helper.make_node("QuantizeLinear", ["left", "other", "zero"], ["finer_codes"]),
        helper.make_node("DequantizeLinear", ["finer_codes", "other", "zero"], ["finer"]),
        helper.make_node("Concat", ["swapped", "finer"], ["logits"], axis=1),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", None]) for name in ("input", "logits")]
    initializers = [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "moves", ends[:1], ends[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    before = model.SerializeToString()
    prefer_codes(model.graph)
    inputs = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32) * 20
    answers = [
        onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"input": inputs})[0]
        for content in (before, model.SerializeToString())
    ]
    np.testing.assert_array_equal(*answers)
    assert [node.input[0] for node in model.graph.node if node.op_type == "Split"] == ["codes"]
    assert [node.input[0] for node in model.graph.node if node.op_type == "Concat"] == ["right_codes", "swapped"]


@pytest.fixture
def written(made: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporters write the artifact's graph without making it anew, which takes seconds."""
    monkeypatch.setattr(onnx_file, "serialize", lambda *_, **__: made.path.read_bytes())


@pytest.mark.usefixtures("written")
def test_what_rounds_otherwise_is_refused(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "answer", lambda runtime, inputs: torch.ones(len(inputs), 10))
    with pytest.raises(ExportError, match=r"tolerance is 0\.1 .*int8\.bits is to be 7"):
        exporter.find("onnx")(artifact, tmp_path, samples(), TASK)


@pytest.mark.usefixtures("written")
def test_openvino_answers_what_the_artifact_does(artifact: Artifact, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    done = exporter.find("openvino")(artifact, tmp_path, samples(), TASK)
    assert done.difference < 0.03
    assert done.agreement == 1.0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["student.bin", "student.xml"]
    assert done.nbytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert b'element_type="i8"' in done.path.read_bytes()
    torch.testing.assert_close(done.single()(samples()[1].inputs), done.predict(samples()[1].inputs))


def test_openvino_takes_float_networks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    content = onnx_file.serialize(model, samples()[0].inputs)
    monkeypatch.setattr(onnx_file, "serialize", lambda *_, **__: content)
    whole, half = (
        exporter.find("openvino")(Artifact(model), tmp_path / str(half), samples(), TASK, half=half, tolerance=0.01)
        for half in (False, True)
    )
    assert whole.difference < 1e-5 < half.difference
    assert half.parts[0].stat().st_size < whole.parts[0].stat().st_size


def test_without_openvino_it_says_how_to_get_it(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ExportError, match="pip install openvino"):
        exporter.find("openvino")(artifact, tmp_path, samples(), TASK)
    with pytest.raises(ExportError, match="pip install openvino"):
        refuse_missing("openvino")  # before anything is trained
    refuse_missing("onnx")
