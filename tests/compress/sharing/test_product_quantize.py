"""Codebooks of blocks: product and residual quantization."""

import pytest
import torch
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.artifact.storage import Encoded
from distill.compress.encode import encode
from distill.compress.sharing._codebooks import k_means, nearest
from distill.compress.sharing.product_quantize import product_quantize
from distill.errors import RecipeError
from tests.compress import nets


def wrong(artifact: Artifact, **settings: object) -> float:
    weight = artifact.model.kernel.weight.detach()
    return float((product_quantize(artifact, **settings).stored["kernel.weight"].decode() - weight).norm())


def test_kernels_are_blocks() -> None:
    done = product_quantize(nets.artifact(), block=4)
    widths = {name: form.codebooks.shape[2] for name, form in done.stored.items()}
    assert widths == {
        "stem.weight": 9,
        "depthwise.weight": 9,
        "point.weight": 4,
        "kernel.weight": 15,
        "up.weight": 4,
        "tied.weight": 4,
        "head.weight": 4,
    }


def test_every_block_is_its_nearest_entry() -> None:
    artifact = nets.artifact()
    for name, form in product_quantize(artifact, codebook_size=6).stored.items():
        weight = artifact.model.get_parameter(name).detach()
        rows = weight.movedim(form.axis, 0).reshape(-1, form.codebooks.shape[2])
        books = form.codebooks[0].float()
        least = (rows[:, None] - books).square().sum(2).min(1)
        assert torch.equal(form.codes[0].long(), least.indices), name
        decoded = form.decode().movedim(form.axis, 0).reshape(rows.shape)
        torch.testing.assert_close((decoded - rows).square().sum(1), least.values)


def test_rows_that_a_block_does_not_divide() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(10, 32, bias=False)
    form = product_quantize(Artifact(layer), block=4).stored["weight"]
    assert form.codes.shape == (1, 32 * 3)
    assert form.decode().shape == layer.weight.shape
    padded = nn.functional.pad(layer.weight.detach(), (0, 2)).reshape(-1, 4)
    chosen = form.codebooks[0].float()[form.codes[0].long()]
    assert torch.equal(form.decode(), chosen.reshape(32, 12)[:, :10])
    assert (chosen - padded).square().sum() < padded.square().sum() / 2


def test_residual_stages_err_less() -> None:
    artifact = nets.artifact()
    errors = [wrong(artifact, codebook_size=8, residual=stages) for stages in range(4)]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < 0.75 * errors[0]


def test_larger_codebooks_err_less() -> None:
    artifact = nets.artifact()
    errors = [wrong(artifact, codebook_size=size) for size in (2, 8, 32)]
    assert errors == sorted(errors, reverse=True)


def test_a_codebook_has_a_quarter_of_the_blocks_at_most() -> None:
    done = product_quantize(nets.artifact(), codebook_size=256)
    assert all(4 * form.codebooks.shape[1] <= max(4, form.codes.shape[1]) for form in done.stored.values())


def test_clusters_that_lie_apart_are_found() -> None:
    torch.manual_seed(0)
    centres = 20 * torch.eye(5)
    rows = (centres[:, None] + 0.1 * torch.randn(5, 9, 5)).reshape(-1, 5)
    means = k_means(rows, 5, torch.Generator().manual_seed(1))
    found = means[nearest(centres, means)]
    torch.testing.assert_close(found, rows.reshape(5, 9, 5).mean(1))


@pytest.mark.parametrize("rows", [torch.zeros(12, 3), torch.ones(12, 3), torch.eye(12)[:, :3]])
def test_few_different_rows_are_met_exactly(rows: Tensor) -> None:
    means = k_means(rows, 6, torch.Generator().manual_seed(0))
    torch.testing.assert_close(means[nearest(rows, means)], rows)


def test_codes_are_encoded_without_loss() -> None:
    before = product_quantize(nets.artifact(), codebook_size=8, residual=1)
    done = encode(before)
    assert all(isinstance(form, Encoded) for form in done.stored.values())
    assert done.nbytes() < before.nbytes()
    assert torch.equal(done.model(nets.images()), before.model(nets.images()))


@pytest.mark.parametrize("wrong", [{"block": 1}, {"codebook_size": 257}, {"codebook_size": 1}, {"residual": -1}])
def test_settings_out_of_range(wrong: dict[str, int]) -> None:
    with pytest.raises(RecipeError, match="product_quantize needs block >= 2, codebook_size from 2 to 256"):
        product_quantize(nets.artifact(), **wrong)
