"""Only layers that get faster are pruned, as far as that helps, and what would not get faster is dense again."""

import logging
from dataclasses import replace
from math import ceil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distill.artifact import Artifact, open_artifact
from distill.artifact.sparse import Sparse, Spliced
from distill.artifact.straight_through import finalize, trainable
from distill.batch import Batch
from distill.compress.pruning.guided_sparsity import Restorable, guided_sparsity
from distill.compress.quantization.quantize import quantize
from distill.errors import RecipeError
from distill.kernels import Machine, SparseConv2d, sparse
from distill.kernels.performance import works
from tests.compress import nets

FAST = {"flops": 1e9, "bandwidth": 5e8, "alpha": 3.0}


class Net(nn.Module):
    """Convolutions worth pruning, one that is not, and a layer of another kind."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 16, 3, padding=1)
        self.deep = nn.Conv2d(16, 32, 3, padding=1, stride=2)
        self.depthwise = nn.Conv2d(32, 32, 3, groups=32)
        self.head = nn.Linear(32, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.depthwise(self.deep(self.wide(images).relu()).relu()).relu()
        return self.head(features.mean((2, 3)))


PRUNED = ["wide.weight", "deep.weight"]


def start() -> Artifact:
    torch.manual_seed(0)
    model = Net().eval()
    with torch.no_grad():
        model.wide.weight *= 0.4  # about as large as the other's
    return Artifact(model, network={"name": f"{__name__}:Net"})


def batches() -> list[Batch]:
    random, rows = torch.Generator().manual_seed(1), torch.arange(8)
    return [Batch(torch.randn(8, 3, 16, 16, generator=random), rows % 5, rows) for _ in range(2)]


def guide(artifact: Artifact, progress: float = 1.0, **settings: object) -> Artifact:
    return guided_sparsity(artifact, batches(), nets.task_loss, progress, **{**FAST, "layers": None, **settings})


def ranges() -> dict[str, tuple[float, float]]:
    machine = Machine(FAST["flops"], FAST["bandwidth"], FAST["alpha"])
    return {f"{path}.weight": machine.useful(w) for path, w in works(start().model, batches()[0].inputs).items()}


def masks(artifact: Artifact) -> dict[str, Tensor]:
    return {name: artifact.model.get_parameter(name) != 0 for name in PRUNED}


def train(artifact: Artifact) -> Artifact:
    model = trainable(artifact).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for batch in batches():
        optimizer.zero_grad()
        cross_entropy(model(batch.inputs), batch.labels).backward()
        optimizer.step()
    return finalize(artifact, model.eval())


def test_only_convolutions_that_get_faster_are_pruned() -> None:
    assert list(guide(start(), bandwidth=7e7).stored) == ["deep.weight"]
    assert list(guide(start()).stored) == PRUNED
    assert guide(start(), bandwidth=1.0).stored == {}
    assert list(guide(start(), bandwidth=1.0, layers=["wide"]).stored) == ["wide.weight"]


def test_one_threshold_decides_as_the_authors_code_has_it() -> None:
    artifact, k = start(), 7.0
    done = guide(artifact, sparsity=0.75, k=k)
    weights = [artifact.model.get_parameter(name) for name in PRUNED]
    losses = [cross_entropy(artifact.model(batch.inputs), batch.labels) for batch in batches()]
    slopes = [torch.autograd.grad(loss, weights, retain_graph=True) for loss in losses]
    sizes = [(one.abs() + other.abs()) / 2 for one, other in zip(*slopes, strict=True)]
    kept = [masks(done)[name] for name in PRUNED]
    scores = [w.abs() * g + w.abs() / k for w, g in zip(weights, sizes, strict=True)]
    t = min(float(score[mask].detach().min()) for score, mask in zip(scores, kept, strict=True)) * (1 - 1e-5)
    for weight, slope, mask in zip(weights, sizes, kept, strict=True):
        assert torch.equal(weight.abs() > 1 / (slope / t + 1 / (k * t)), mask)
    count = sum(mask.numel() for mask in kept)
    assert sum(int(mask.sum()) for mask in kept) == count - round(0.75 * count)


def test_a_layer_at_its_least_useful_density_stays_as_it_is() -> None:
    half, done = guide(start(), 0.5, sparsity=0.999), guide(guide(start(), 0.5, sparsity=0.999), sparsity=0.9999)
    for name in PRUNED:
        mask = masks(done)[name]
        assert int(mask.sum()) == ceil(ranges()[name][0] * mask.numel())
        assert (mask <= masks(half)[name]).all()
    again = guide(replace(done, stored={}), sparsity=0.9999)
    assert all(torch.equal(masks(again)[name], masks(done)[name]) for name in PRUNED)


def test_what_would_not_get_faster_is_dense_again_in_the_end() -> None:
    artifact = start()
    with torch.no_grad():
        artifact.model.deep.weight *= 0.01  # it alone is pruned, the other stays too dense
    first = train(guide(artifact, 0.5, sparsity=0.9))
    assert all(isinstance(first.stored[name], Restorable) for name in PRUNED)
    density = float(masks(first)["wide.weight"].float().mean())
    assert 1 / 3 < density < 1
    done = guide(first, sparsity=0.7)
    assert list(done.stored) == ["deep.weight"]
    trained, before, now = (one.model.wide.weight for one in (first, artifact, done))
    assert torch.equal(now, torch.where(trained == 0, before, trained))
    assert not torch.equal(trained[trained != 0], before[trained != 0])


@pytest.mark.parametrize(("splice", "kind"), [(False, Sparse), (True, Spliced)])
def test_rounds_of_pruning_and_training(
    splice: bool, kind: type, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = start()
    with caplog.at_level(logging.INFO, "distill.compress"):
        for progress in (0.5, 1.0):
            done = train(guide(done, progress, sparsity=0.9, splice=splice))
            done.save(tmp_path / "round.safetensors")
            done = open_artifact(tmp_path / "round.safetensors", allow=[__name__])
    assert caplog.messages[-1].startswith("guided_sparsity: 2 layers, kept 504 of 5040 weights")
    assert {type(form) for form in done.stored.values()} == {kind}
    images = batches()[0].inputs
    fast = sparse(done.model, images, Machine(FAST["flops"], FAST["bandwidth"], FAST["alpha"]))
    assert isinstance(fast.wide, SparseConv2d)
    assert isinstance(fast.deep, SparseConv2d)
    with torch.no_grad():
        torch.testing.assert_close(fast(images), done.model(images), rtol=0, atol=1e-5)


def test_spliced_masks_follow_what_is_learned_and_others_do_not() -> None:
    learned = torch.randn(32, 16, 3, 3, generator=torch.Generator().manual_seed(2))
    for splice in (False, True):
        form = guide(start(), 0.5, splice=splice).stored["deep.weight"]
        before, after = form.decode() != 0, form.requantize(learned).decode() != 0
        assert after.sum() == before.sum()
        assert torch.equal(after, before) is not splice
        assert torch.equal(form.requantize(learned).before, start().model.deep.weight)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"sparsity": 1.0}, "needs 0 < sparsity < 1"),
        ({"alpha": 0.0}, "alpha, beta, flops, bandwidth above 0"),
        ({"layers": ["head"]}, "prunes convolutions with zeros around their input"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        guide(start(), **settings)


def test_it_comes_before_hooks_that_store_weights_otherwise() -> None:
    with pytest.raises(RecipeError, match=r"'wide.weight' is already stored in another form: put 'guided_sparsity'"):
        guide(quantize(start()))
