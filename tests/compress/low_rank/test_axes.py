"""What takes a layer's place follows the layer's own rule about axes: nn.Linear acts on the last of any number of
dimensions, nn.Conv2d on the second of four."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.models import squeezenet1_1

from distill.artifact import Artifact, open_artifact
from distill.artifact.straight_through import finalize, trainable
from distill.batch import Batch
from distill.compress import hook
from distill.compress.low_rank._error_weighting import ErrorWeights, TracedLayer
from distill.compress.low_rank.tt_matrix import Products, TTMatrix
from tests import families

HOOKS = ("cp", "svd", "tensor_train", "tt_matrix", "tucker")
CHANNELS_LAST = ("convnext", "maxvit", "swin", "vit")
"""Whose linear layers read (batch, tokens, channels) or (batch, height, width, channels)."""


def factorised(name: str, family: str) -> tuple[Artifact, Artifact]:
    artifact = Artifact(families.build(family), network={"name": f"tests.families:{family}"})
    labels = torch.arange(8) % families.CLASSES
    batch = Batch(families.images(family, 8, seed=2), labels, torch.arange(8))
    return artifact, hook.find(name)(artifact, lambda model: 1.0, [batch], max_error=0.9)


def stands_for(new: nn.Module, inputs: int) -> tuple[Tensor, Tensor]:
    """The weight and the bias of the linear layer that a module computes as, from its outputs on vectors."""
    bias = new(torch.zeros(1, inputs))
    return (new(torch.eye(inputs)) - bias).T, bias[0]


@pytest.mark.parametrize("family", CHANNELS_LAST)
@pytest.mark.parametrize("name", HOOKS)
def test_replaced_linear_layers_compute_on_the_last_dimension(name: str, family: str, tmp_path: Path) -> None:
    before, after = factorised(name, family)
    dense = copy.deepcopy(after.model)
    replaced = [
        path for plan in after.plans for path in plan.layers if isinstance(before.model.get_submodule(path), nn.Linear)
    ]
    assert replaced
    with torch.no_grad():
        for path in replaced:
            old = before.model.get_submodule(path)
            plain = nn.Linear(old.in_features, old.out_features)
            weight, bias = stands_for(after.model.get_submodule(path), old.in_features)
            plain.weight.copy_(weight)
            plain.bias.copy_(bias)
            dense.set_submodule(path, plain)
    images = families.images(family, 3)
    torch.testing.assert_close(after.model(images), dense(images), rtol=1e-4, atol=1e-4)

    model = trainable(after).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    cross_entropy(model(images), torch.arange(3)).backward()
    optimizer.step()
    done = finalize(after, model.eval())
    done.save(tmp_path / "student.safetensors")
    loaded = open_artifact(tmp_path / "student.safetensors", allow=["tests.families"])
    assert torch.equal(loaded.model(images), done.model(images))


@settings(max_examples=40, deadline=None)
@given(
    leading=st.lists(st.integers(1, 4), max_size=4),
    rank=st.sampled_from([1, 2]),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_number_of_leading_dimensions(leading: list[int], rank: int, bias: bool, seed: int) -> None:
    torch.manual_seed(seed)
    layer = nn.Linear(12, 20, bias=bias)
    products = Products(TracedLayer(layer, (12,), (20,)), ErrorWeights())
    option = next(option for option in products.options("size") if option.spec["ranks"] == [rank])
    new = TTMatrix(layer, option.spec)
    with torch.no_grad():
        products.fill(new, option.spec)
        inputs = torch.randn(*leading, 12)
        expected = nn.functional.linear(inputs, *stands_for(new, 12))
        assert new(inputs).shape == expected.shape
        torch.testing.assert_close(new(inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["svd", "tucker"])
def test_inputs_most_of_which_are_always_zero(name: str) -> None:
    """SqueezeNet on 32 x 32 images has 1 x 1 maps at its end: of a padded 3 x 3 patch only the middle is not zero."""
    artifact = Artifact(squeezenet1_1(num_classes=10).eval())
    batch = Batch(torch.randn(8, 3, 32, 32), torch.arange(8), torch.arange(8))
    settings = {"scheme": "channel"} if name == "svd" else {}
    done = hook.find(name)(artifact, lambda model: 1.0, [batch], max_error=0.5, layers=["features.12.*"], **settings)
    assert done.plans
    assert done.model(batch.inputs).isfinite().all()
