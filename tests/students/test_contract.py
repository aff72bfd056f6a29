"""What every network of ours does, whatever its family."""

import inspect
import pydoc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import students
from distill.export.onnx_file import answer, serialize, session
from distill.models.surgery import deployable
from distill.models.taps import Taps
from students import student

NAMES = student.names()
EXPORTED = ("nin", "nin_low_rank", "vgg11_low_rank")
"""Those that take a second or two and whose layers no other file of tests exports."""


def settings(name: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(student.find(name)).parameters)


def size(name: str, others: int = 16) -> int:
    fixed = settings(name).get("input_size")
    return fixed.default if fixed else others


def build(name: str, *, small: bool = True, channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    options: dict[str, Any] = {"small_images": small} if "small_images" in settings(name) else {}
    if name == "lcnn_alexnet":
        options["linear"] = 4  # with the paper's dictionaries it has 170 million numbers to train
    return student.find(name)(num_classes=7, channels=channels, **options)


def images(name: str) -> Tensor:
    return torch.randn(2, 3, size(name), size(name), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_its_settings_are_keyword_only_and_have_defaults(name: str) -> None:
    assert {"num_classes", "channels"} <= set(settings(name))
    for parameter in settings(name).values():
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty
        assert parameter.annotation is not parameter.empty
    assert student.find(name).__name__ == name
    assert student.find(name).__doc__


@pytest.mark.parametrize("name", NAMES)
def test_it_is_imported_by_its_name(name: str) -> None:
    assert getattr(students, name) is student.find(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient_and_every_stage_can_be_tapped(name: str) -> None:
    network = build(name)
    logits, features = Taps(network, network.stages)(images(name))
    assert logits.shape == (2, 7)
    (logits.square().sum() + sum(feature.square().mean() for feature in features.values())).backward()
    for path, parameter in network.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path
    assert all(feature.isfinite().all() and feature.abs().sum() > 0 for feature in features.values())


@pytest.mark.parametrize("name", NAMES)
def test_its_stages_shrink_from_early_to_late(name: str) -> None:
    with torch.device("meta"):
        network = build(name).eval()
        _, features = Taps(network, network.stages)(images(name).to("meta"))
    assert list(features) == list(network.stages)
    assert len(features) in (2, 3, 4)
    sizes = [feature.shape[2:].numel() for feature in features.values()]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("name", NAMES)
def test_channels_and_image_size_change_the_first_layer_only(name: str) -> None:
    edge = size(name, others=64)
    with torch.device("meta"):
        first, others = shapes(build(name, small=False))
        for small in (False, True) if "small_images" in settings(name) else (False,):
            for channels in (1, 3):
                network = build(name, small=small, channels=channels).eval()
                assert network(torch.empty(2, channels, edge, edge)).shape == (2, 7)
                assert shapes(network)[0].keys() == first.keys()
                assert shapes(network)[1] == others


def shapes(network: nn.Module) -> tuple[dict[str, torch.Size], dict[str, torch.Size]]:
    """Of the tensors of the first layer, and of all others."""
    sizes = {path: value.shape for path, value in network.state_dict().items()}
    layer = next(iter(sizes)).rpartition(".")[0]
    first = {path: sizes.pop(path) for path in list(sizes) if path.rpartition(".")[0] == layer}
    return first, sizes


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_decides_all_weights_and_a_state_dict_carries_them(name: str) -> None:
    first, again = build(name), build(name)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    batch = images(name)
    with torch.no_grad():
        expected = first.eval()(batch)
        for parameter in again.parameters():
            parameter.zero_()
        assert not torch.equal(again.eval()(batch), expected)
        again.load_state_dict(first.state_dict())
        torch.testing.assert_close(again(batch), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", EXPORTED)
@torch.no_grad()
def test_it_computes_the_same_in_onnx(name: str) -> None:
    network, batch = build(name).eval(), images(name)
    found = answer(session(serialize(deployable(network), batch), threads=1), batch)
    torch.testing.assert_close(found, network(batch), rtol=1e-4, atol=1e-4)


def test_no_file_hides_a_network() -> None:
    files = {path.stem for path in Path(students.__file__).parent.glob("*.py")}
    assert not files & set(NAMES)


def test_importing_a_network_needs_nothing_of_the_training_code() -> None:
    code = "import sys; from students import resnet20; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'students.resnet_cifar'" in loaded
    for module in ("pytorch_lightning", "lightning", "omegaconf", "jaxtyping", "distill.recipe"):
        assert f"'{module}'" not in loaded


def test_the_package_lists_its_networks_without_torch() -> None:
    code = "import sys, students; print(*dir(students), 'torch' in sys.modules)"
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(student.names()) <= set(listed)
    assert listed[-1] == "False"


def test_the_package_gives_all_of_its_networks_and_documents_them() -> None:
    namespace: dict[str, Any] = {}
    exec("from students import *", namespace)
    assert namespace.keys() - {"__builtins__"} == set(student.names())
    page = pydoc.plain(pydoc.render_doc(students))
    assert all(f"    {name}(" in page for name in student.names())
