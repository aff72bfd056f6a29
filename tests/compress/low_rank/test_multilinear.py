"""Tucker and CP: exact where the kernel has that rank, as good as TensorLy's where it has not."""

import numpy as np
import pytest
import torch
from torch import nn

from distill.artifact import Artifact
from distill.batch import Batch
from distill.compress.low_rank import cp as cp_module
from distill.compress.low_rank._error_weighting import ErrorWeights, TracedLayer
from distill.compress.low_rank.cp import cp
from distill.compress.low_rank.tucker import Tucker2, tucker
from distill.models.cost import macs, params
from tests.compress import nets

HOOKS = {"tucker": tucker, "cp": cp}
GEOMETRIES = [{}, {"stride": (2, 3), "padding": (1, 2)}, {"dilation": 2, "padding": "same", "bias": False}]


def kernel_of(kind: str, rank: int, **geometry: object) -> nn.Conv2d:
    torch.manual_seed(rank)
    conv = nn.Conv2d(24, 20, 3, **geometry)
    ends, axes = (torch.randn(20, rank), torch.randn(24, rank)), (torch.randn(3, rank), torch.randn(3, rank))
    if kind == "cp":
        conv.weight.data = torch.einsum("or,ir,hr,wr->oihw", *ends, *axes)
    else:
        conv.weight.data = torch.einsum("ob,ia,bahw->oihw", *ends, torch.randn(rank, rank, 3, 3))
    return conv


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_a_kernel_of_that_rank_is_replaced_exactly(kind: str, geometry: dict[str, object]) -> None:
    conv = kernel_of(kind, 2, **geometry)
    artifact, images = Artifact(nn.Sequential(conv)), torch.randn(2, 24, 11, 12)
    done = HOOKS[kind](artifact, nets.anything, nets.calibration(24, 11, 12), max_error=0.02, weighting="none")
    assert float((done.model(images) - conv(images)).norm() / conv(images).norm()) < 0.03  # max_error is of the weight
    assert params(done.model) < params(conv) / 4


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("weighting", ["none", "inputs", "outputs"])
def test_budgets_are_counted_as_they_are(kind: str, weighting: str) -> None:
    torch.manual_seed(0)
    conv, images = nn.Conv2d(24, 20, 3, stride=2, padding=1), torch.randn(1, 24, 12, 10)
    for number, count in (("max_params", params), ("max_macs", lambda model: macs(model, images))):
        done = HOOKS[kind](
            Artifact(nn.Sequential(conv)),
            nets.anything,
            nets.calibration(24, 12, 10),
            weighting=weighting,
            **{number: 0.6},
        )
        assert 0.3 < count(done.model) / count(conv) <= 0.6


@pytest.mark.parametrize("kind", HOOKS)
def test_matrices_become_two_layers(kind: str) -> None:
    model = nn.Sequential(nn.Conv2d(24, 32, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 20))
    done = HOOKS[kind](Artifact(model.eval()), nets.anything, nets.calibration(24, 5, 5), max_params=0.5)
    assert {path: len(spec["ranks"]) for path, spec in done.plans[0].layers.items()} == {"0": 1, "3": 1}
    assert [layer.kernel_size for layer in done.model[0]] == [(1, 1), (1, 1)]


def test_tucker_is_within_its_bound_and_near_the_best() -> None:
    """HOOI is at least as good; the higher-order singular value decomposition is at most sqrt(2) from the best."""
    tensorly = pytest.importorskip("tensorly")
    torch.manual_seed(0)
    conv = nn.Conv2d(24, 20, 3)
    weight = conv.weight.detach().double().numpy()
    made = Tucker2(TracedLayer(conv, (24, 8, 8), (20, 6, 6)), ErrorWeights())
    for option in made.options("size")[::41]:
        first, last = option.spec["ranks"]
        u, v = made.inputs[0][:, :first].numpy(), made.outputs[0][:, :last].numpy()
        ours = np.linalg.norm(weight - np.einsum("oihw,ia,ja,ob,pb->pjhw", weight, u, u, v, v, optimize=True))
        (core, factors), _ = tensorly.decomposition.partial_tucker(weight, rank=[last, first], modes=[0, 1])
        best = np.linalg.norm(weight - tensorly.tenalg.multi_mode_dot(core, factors, modes=[0, 1]))
        assert best - 1e-9 <= ours <= np.sqrt(2) * best + 1e-9
        assert ours <= np.linalg.norm(weight) * option.error**0.5 + 1e-9


@pytest.mark.parametrize("rank", [3, 12])
def test_cp_is_as_good_as_tensorlys(rank: int) -> None:
    tensorly = pytest.importorskip("tensorly")
    weight = torch.randn(10, 8, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    ours = torch.einsum("or,ir,hr,wr->oihw", *cp_module.decompose(weight, rank))
    factors = tensorly.decomposition.parafac(weight.numpy(), rank, n_iter_max=100, random_state=0)
    theirs = tensorly.cp_to_tensor(factors)
    assert float((ours - weight).norm()) <= 1.05 * np.linalg.norm(theirs - weight.numpy())


def test_error_weights_do_not_scale_the_factors_of_tucker_apart() -> None:
    """Inputs of a millionth: unscaled, the last factor undoes what the first ones shrink, and training diverges."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(24, 20, 3, padding=1), nn.ReLU(), nn.Conv2d(20, 24, 3, padding=1)).eval()
    batch = Batch(1e-6 * torch.randn(8, 24, 6, 6), torch.zeros(8, dtype=torch.long), torch.arange(8))
    done = tucker(Artifact(model), nets.anything, [batch], max_params=0.5)
    for path in done.plans[0].layers:
        norms = [layer.weight.norm() for layer in done.model.get_submodule(path)]
        torch.testing.assert_close(torch.stack(norms), norms[0].expand(len(norms)))
