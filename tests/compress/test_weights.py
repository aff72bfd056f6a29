"""Which parameters are weights: those that layers multiply with, and nothing that a network holds beside its layers."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from distill.artifact import Artifact, open_artifact
from distill.compress._weights import weights_of
from distill.compress.encode import encode
from distill.compress.pruning.prune import prune
from distill.compress.sharing.cluster import cluster
from tests import families
from tests.compress import nets

BESIDE = ("class_token", "pos_embedding", "relative_position_bias_table", "layer_scale")


class Parametrized(nn.Sequential):
    """Two layers whose weights are computed in every forward, and a plain one."""

    def __init__(self) -> None:
        first, second = weight_norm(nn.Linear(6, 16)), spectral_norm(nn.Linear(16, 16))
        super().__init__(nn.Flatten(), first, second, nn.Linear(16, 4))


def test_weights_that_are_computed_get_no_codes_and_are_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    artifact = Artifact(Parametrized().eval(), network={"name": f"{__name__}:Parametrized"})
    done, images = encode(cluster(artifact)), torch.randn(5, 6)
    done.save(tmp_path / "small.safetensors")
    loaded = open_artifact(tmp_path / "small.safetensors", allow=[__name__])
    assert done.stored.keys() == {"3.weight"}
    assert torch.equal(*(nn.Sequential(*[*one.model][:3])(images) for one in (loaded, artifact)))
    assert torch.equal(loaded.model(images), done.model(images))


@pytest.mark.parametrize("name", ["vit", "swin", "convnext"])
def test_zeros_are_put_into_layers_alone(name: str) -> None:
    artifact = Artifact(families.build(name))
    layers = nn.Conv2d, nn.Linear, nn.MultiheadAttention
    expected = {
        f"{path}.{own}"
        for path, module in artifact.model.named_modules()
        if isinstance(module, layers)
        for own, _ in module.named_parameters(recurse=False)
        if own in ("weight", "in_proj_weight")
    }
    done = prune(artifact, nets.calibration(3, 32, 32), nets.task_loss, sparsity=0.8)
    before, after = artifact.model.state_dict(), done.model.state_dict()
    assert set(done.stored) == expected
    assert {name for name in before if not torch.equal(before[name], after[name])} <= expected
    assert any(name.endswith(BESIDE) for name in before)


def test_vectors_in_the_shape_of_what_they_scale_are_no_weights() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8, 1, 1))

    narrow = nn.Sequential(nn.Conv2d(1, 8, 1), Scale(), nn.Flatten(), nn.Linear(8, 1), nn.Embedding(4, 3), nn.GRU(3, 2))
    assert set(weights_of(Artifact(narrow), "prune", None)) == {
        "0.weight",
        "3.weight",
        "4.weight",
        "5.weight_ih_l0",
        "5.weight_hh_l0",
    }
