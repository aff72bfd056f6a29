"""Files as Caffe wrote them, old and new, whole and damaged."""

import base64
import json
import random as dice
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from distill.artifact import Artifact, open_artifact
from distill.errors import ArtifactError, RecipeError
from distill.models.build import build_network
from distill.models.caffe import CaffeNet, caffe, read
from distill.models.caffe._schema import network
from distill.models.caffe.network import pack
from tests.models.caffe.writer import Files, Written, layers_of, random, write


def example() -> nn.Sequential:
    """All that the writer knows."""
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("conv1", nn.Conv2d(3, 8, 3, padding=1, bias=False))
    model.add_module("norm1", nn.BatchNorm2d(8))
    model.add_module("relu1", nn.ReLU())
    model.add_module("pool1", nn.MaxPool2d(2, 2, ceil_mode=True))
    model.add_module("conv2", nn.Conv2d(8, 8, 3, groups=4, dilation=2))
    model.add_module("drop", nn.Dropout(0.4))
    model.add_module("flat", nn.Flatten())
    model.add_module("fc", nn.Linear(32, 5))
    model.add_module("prob", nn.Softmax(1))
    norm = model.get_submodule("norm1")
    assert isinstance(norm, nn.BatchNorm2d)
    for values in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        assert values is not None
        values.copy_(torch.rand(8) + 0.5)
    return model.eval()


SHAPE = (1, 3, 11, 11)
IMAGES = torch.from_numpy(random(2, *SHAPE[1:]))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return write(tmp_path, layers_of(example()), SHAPE)


def edited(files: Files, old: str, new: str) -> Files:
    text = files.prototxt.read_text()
    assert old in text
    files.prototxt.write_text(text.replace(old, new))
    return files


def test_a_network_comes_back(files: Files) -> None:
    torch.testing.assert_close(read(*files)(IMAGES), example()(IMAGES))


def test_children_have_the_names_of_layers_and_are_pytorchs_own(files: Files) -> None:
    net = read(*files)
    assert [name for name, _ in net.named_children()] == [name for name, _ in example().named_children()]
    assert {type(module) for module in net.children()} == {type(module) for module in example().children()}


def test_files_of_the_old_format(tmp_path: Path) -> None:
    model = example()
    layers = [layer for layer in layers_of(model) if not layer.name.startswith("norm1")]
    old = read(*write(tmp_path, layers, SHAPE, old=True))
    torch.testing.assert_close(old(IMAGES), read(*write(tmp_path, layers, SHAPE))(IMAGES))


def test_old_weights_for_a_new_prototxt(tmp_path: Path) -> None:
    layers = [layer for layer in layers_of(example()) if not layer.name.startswith("norm1")]
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
    old, new = (write(tmp_path / folder, layers, SHAPE, old=folder == "old") for folder in ("old", "new"))
    torch.testing.assert_close(read(new.prototxt, old.caffemodel)(IMAGES), read(*new)(IMAGES))


def test_the_oldest_format_is_refused(files: Files) -> None:
    files.prototxt.write_text('input: "image" input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 4 '
                              'layers { layer { name: "c" type: "conv" } bottom: "image" top: "c" }')  # fmt: skip
    with pytest.raises(ArtifactError, match="V0.*upgrade_net_proto_text"):
        read(*files)


def test_layers_of_training_are_left_out(files: Files) -> None:
    loss = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" include { phase: TRAIN } }'
    files.prototxt.write_text(files.prototxt.read_text() + loss)
    torch.testing.assert_close(read(*files)(IMAGES), example()(IMAGES))


def test_half_precision_and_double_blobs(files: Files) -> None:
    message = network()
    message.ParseFromString(files.caffemodel.read_bytes())
    for layer in message.layer:
        if layer.name == "conv1":
            blob = layer.blobs[0]
            values = np.array(blob.data, np.float32).astype("<f2")
            blob.raw_data_type, blob.raw_data = 2, values.tobytes()
            del blob.data[:]
        if layer.name == "fc":
            values = list(layer.blobs[0].data)
            layer.blobs[0].double_data.extend(values)
            del layer.blobs[0].data[:]
    files.caffemodel.write_bytes(message.SerializeToString())
    torch.testing.assert_close(read(*files)(IMAGES), example()(IMAGES), atol=2e-3, rtol=1e-2)


def test_transposed_inner_product(tmp_path: Path) -> None:
    weight, bias = random(4, 3), random(3)
    settings = "inner_product_param { num_output: 3 transpose: true }"
    net = read(*write(tmp_path, [Written("i", "InnerProduct", settings, [weight, bias])], (1, 4)))
    images = random(2, 4, seed=3)
    np.testing.assert_allclose(net(torch.from_numpy(images)).detach().numpy(), images @ weight + bias, rtol=1e-5)


def test_lrn_with_another_constant(tmp_path: Path) -> None:
    kernel = np.eye(3)[:, :, None, None]
    one = Written("c", "Convolution", "convolution_param { num_output: 3 kernel_size: 1 bias_term: false }", [kernel])
    lrn = Written("l", "LRN", "lrn_param { local_size: 3 alpha: 0.6 beta: 0.5 k: 4 }")
    x = random(1, 3, 1, 1)[0, :, 0, 0]
    energy = [x[0] ** 2 + x[1] ** 2, (x**2).sum(), x[1] ** 2 + x[2] ** 2]
    expected = x / np.sqrt(4 + 0.6 / 3 * np.array(energy))
    net = read(*write(tmp_path, [one, lrn], (1, 3, 1, 1)))
    np.testing.assert_allclose(net(torch.from_numpy(x)[None, :, None, None])[0, :, 0, 0].detach(), expected, rtol=1e-5)


@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2))
def test_sizes_of_pooling_follow_caffes_rule(
    tmp_path_factory: pytest.TempPathFactory, size: int, kernel: int, stride: int, pad: int
) -> None:
    """Rounded up; where maps are padded, a last window that begins beyond the map and its left padding is left out."""
    count = -(-(size + 2 * pad - kernel) // stride) + 1
    if pad and (count - 1) * stride >= size + pad:
        count -= 1
    possible = 2 * pad <= kernel <= size + 2 * pad and count > 0 and (pad > 0 or (count - 1) * stride < size)
    layers = [
        Written(
            "c", "Convolution", "convolution_param { num_output: 1 kernel_size: 1 }", [random(1, 1, 1, 1), random(1)]
        ),
        Written("p", "Pooling", f"pooling_param {{ pool: AVE kernel_size: {kernel} stride: {stride} pad: {pad} }}"),
    ]
    files = write(tmp_path_factory.mktemp("pooling"), layers, (1, 1, size, size))
    if possible:
        assert read(*files)(torch.zeros(1, 1, size, size)).shape[2:] == (count, count)
    elif pad == 0 and kernel <= size:
        with pytest.raises(ArtifactError, match="last window"):
            read(*files)


def test_names_that_no_module_may_have(tmp_path: Path) -> None:
    conv = "convolution_param { num_output: 3 kernel_size: 1 }"
    names = ["a.b", "forward", "inputs", "type", "class", "a_b"]
    layers = [Written(name, "Convolution", conv, [random(3, 3, 1, 1), random(3)]) for name in names]
    net = read(*write(tmp_path, layers[:5], SHAPE))
    assert [name for name, _ in net.named_children()] == ["a_b", "forward_2", "inputs_2", "type_2", "class_2"]
    with pytest.raises(ArtifactError, match="name of another layer"):
        read(*write(tmp_path, layers, SHAPE))


def test_an_entry_rebuilds_the_network(files: Files, tmp_path: Path) -> None:
    net = read(*files)
    entry = json.loads(json.dumps(net.entry))
    again = build_network(entry)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(IMAGES), net(IMAGES))
    Artifact(net, network=net.entry).save(tmp_path / "net.safetensors")
    assert torch.equal(open_artifact(tmp_path / "net.safetensors").model(IMAGES), net(IMAGES))


def test_an_entry_builds_nothing_but_layers_from_caffe() -> None:
    with pytest.raises(RecipeError, match="unknown layer type 'os.system'"):
        build_network({"name": "caffe", "layers": [{"name": "x", "type": "os.system"}], "inputs": {"data": [1, 2, 2]}})
    with pytest.raises(RecipeError, match="'y', which no layer before it computes"):
        build_network(
            {"name": "caffe", "layers": [{"name": "x", "type": "ReLU", "inputs": ["y"]}], "inputs": {"d": [1]}}
        )


@pytest.mark.parametrize(
    "text", ["", "no base 85 \x00", base64.b85encode(b"no zlib").decode(), pack([{"name": "x"}])[:-5]]
)
def test_packed_layers_that_are_damaged(text: str) -> None:
    with pytest.raises(RecipeError, match="its layers are damaged"):
        build_network({"name": "caffe", "layers": text, "inputs": {"data": [1, 2, 2]}})


def test_packed_layers_that_would_fill_the_memory() -> None:
    bomb = base64.b85encode(zlib.compress(b"[" + b" " * 2**28, 9)).decode()
    with pytest.raises(RecipeError, match="longer than they may be"):
        build_network({"name": "caffe", "layers": bomb, "inputs": {"data": [1, 2, 2]}})


def test_several_outputs_are_a_dict_and_joined_a_tensor() -> None:
    layers = [{"name": "a", "type": "ReLU"}, {"name": "b", "type": "Flatten", "inputs": ["data"]}]
    net = caffe(layers=layers, inputs={"data": [2, 3, 3]})
    outputs = net(torch.ones(4, 2, 3, 3))
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {"a": (4, 2, 3, 3), "b": (4, 18)}
    net.joined = True
    assert net(torch.ones(4, 2, 3, 3)).shape == (4, 36)


def test_several_inputs_are_given_by_name() -> None:
    layers = [{"name": "sum", "type": "Eltwise", "inputs": ["left", "right"]}]
    net = CaffeNet(layers, {"left": [1, 2, 2], "right": [1, 2, 2]})
    ones = torch.ones(1, 1, 2, 2)
    assert torch.equal(net({"left": ones, "right": 2 * ones}), 3 * ones)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('type: "ReLU"', 'type: "Swish"', r"unknown types: 'relu1' \(Swish\); known are AbsVal"),
        ('type: "ReLU"', 'type: "Swish" swish_param { beta: 2 }', r"unknown types: 'relu1' \(Swish\)"),
        ("num_output: 5", "num_output: 6", "layer 'fc' .*needs weights of 6x32, but the caffemodel holds 5x32"),
        ("num_output: 5", "num_output: 4294967295", "needs weights of 4294967295x32, but"),
        ("num_output: 5", "num_outputs: 5", 'line .*has no field named "num_outputs"'),
        ("dilation: 2", "dilation: 9", "layer 'conv2' .*cannot read maps of .*6, 6"),
        ("stride: 1 stride: 1", "stride: 0 stride: 1", r"layer 'conv1' .*has kernel \[3, 3\] and stride \[0, 1\]"),
        ("group: 4", "group: 3", "layer 'conv2' .*has 8 channels for 8 in 3 groups"),
        ('name: "fc"', 'name: "other"', "layer 'other' .*the caffemodel holds none"),
        ('bottom: "flat"', 'bottom: "nothing"', r"layer 'fc' .*reads \['nothing'\]"),
        ("input_param { shape { dim: 1 dim: 3 dim: 11 dim: 11 } }", "", "give each its shape"),
        ("dim: 11 dim: 11", "dim: 0 dim: 11", r"input 'image' has shape \[1, 3, 0, 11\]"),
        ("bias_term: true }", "}", "layer 'norm1' .*needs 1 blobs of 8, but the caffemodel holds 2"),
        ('name: "conv1" type', 'name: "conv1" { type', "not a prototxt"),
    ],
)
def test_what_does_not_fit_is_named(files: Files, old: str, new: str, message: str) -> None:
    with pytest.raises(ArtifactError, match=f"net.prototxt.*{message}") as caught:
        read(*edited(files, old, new))
    assert "\n" not in str(caught.value)


def test_all_unknown_layers_are_named_at_once(files: Files) -> None:
    for old, new in (("ReLU", "Swish"), ("Dropout", "DropBlock")):
        edited(files, f'type: "{old}"', f'type: "{new}"')
    with pytest.raises(ArtifactError, match=r"'relu1' \(Swish\), 'drop' \(DropBlock\); known are"):
        read(*files)


def test_foreign_files_are_named(files: Files, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"net.caffemodel is not text: give the prototxt first"):
        read(files.caffemodel, files.prototxt)
    for content, message in (
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        (b"", "holds no weights"),
        (b"PK\x03\x04 something else", "is truncated, damaged or not a caffemodel|holds no weights"),
        (files.prototxt.read_bytes(), "is truncated, damaged or not a caffemodel|holds no weights"),
    ):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(ArtifactError, match=message):
            read(files.prototxt, tmp_path / "other")
    with pytest.raises(ArtifactError, match="cannot read .*missing: No such file"):
        read(files.prototxt, tmp_path / "missing")


def test_weights_of_another_network(files: Files, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = write(tmp_path / "other", [Written("x", "PReLU", "", [random(3)])], SHAPE)
    with pytest.raises(ArtifactError, match="do not belong together: 'x' is in the former alone"):
        read(files.prototxt, other.caffemodel)


def test_a_truncated_caffemodel_is_refused_at_any_length(files: Files) -> None:
    data = files.caffemodel.read_bytes()
    for size in range(0, len(data), 97):
        files.caffemodel.write_bytes(data[:size])
        with pytest.raises(ArtifactError):
            read(*files)


@pytest.mark.parametrize("which", [0, 1])
def test_altered_files_are_read_or_refused_by_name(files: Files, which: int) -> None:
    path, roll = files[which], dice.Random(which)
    whole = path.read_bytes()
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(roll.choice([1, 1, 2, 8])):
            data[roll.randrange(len(data))] = roll.randrange(256)
        path.write_bytes(data)
        with suppress(ArtifactError):
            assert isinstance(read(*files), CaffeNet)
