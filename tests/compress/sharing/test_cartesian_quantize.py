"""Codebooks of the blocks of rotated vectors."""

from math import fsum

import pytest
import torch
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.compress.sharing._codebooks import k_means, nearest
from distill.compress.sharing.cartesian_quantize import cartesian_quantize
from distill.errors import RecipeError
from tests.compress import nets


def linear(weight: Tensor) -> Artifact:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    return Artifact(layer)


def error(weight: Tensor, **settings: int) -> float:
    return float((cartesian_quantize(linear(weight), **settings).stored["weight"].decode() - weight).norm())


def unrotated(rows: Tensor, parts: int, size: int) -> float:
    """The error of a codebook for each block, of vectors as they are."""
    generator = torch.Generator().manual_seed(0)
    found = [(part, k_means(part, size, generator)) for part in rows.chunk(parts, 1)]
    return float(
        torch.stack([(part - means[nearest(part, means)]).square().sum() for part, means in found]).sum().sqrt()
    )


def test_a_rotation_that_hides_few_values_is_found() -> None:
    """Each half of a vector is one of four; then all of it was turned."""
    generator = torch.Generator().manual_seed(0)
    books, codes = torch.randn(2, 4, 4, generator=generator), torch.randint(4, (2, 512), generator=generator)
    turn = torch.randn(8, 8, generator=generator)
    weight = torch.cat([books[0][codes[0]], books[1][codes[1]]], 1) @ torch.matrix_exp(0.1 * (turn - turn.T))
    assert unrotated(weight, 2, 4) > 0.3 * weight.norm()
    assert error(weight, codebook_size=4) < 0.02 * weight.norm()


@pytest.mark.parametrize("seed", range(5))
def test_the_rotation_errs_no_more_than_none(seed: int) -> None:
    torch.manual_seed(seed)
    weight = torch.randn(256, 8) @ torch.randn(8, 8)
    assert error(weight, codebook_size=16) < 1.001 * unrotated(weight, 2, 16)


def test_every_block_of_a_rotated_vector_is_its_nearest_entry() -> None:
    artifact = nets.artifact()
    for name, form in cartesian_quantize(artifact, codebook_size=6).stored.items():
        weight = artifact.model.get_parameter(name).detach()
        rotation, books = form.rotation.float(), form.codebooks.float()
        rows = weight.movedim(form.axis, 0).flatten(1)
        rows = nn.functional.pad(rows, (0, -rows.shape[1] % len(rotation))).reshape(-1, len(rotation)) @ rotation
        for blocks, codes, book in zip(rows.chunk(2, 1), form.codes.long(), books, strict=True):
            distances = (blocks[:, None] - book).square().sum(2)
            torch.testing.assert_close(distances.gather(1, codes[:, None])[:, 0], distances.min(1).values, msg=name)


def test_rotations_are_rotations() -> None:
    for form in cartesian_quantize(nets.artifact(), parts=3).stored.values():
        rotation = form.rotation.float()
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(len(rotation)), atol=0.02, rtol=0)


def test_sums_are_exact_and_rounded_once() -> None:
    """Whatever the number of threads is, and the order of a sum with it."""
    form = cartesian_quantize(linear(torch.randn(64, 32)), block=16).stored["weight"]
    vectors = torch.cat([book[codes] for book, codes in zip(form.codebooks, form.codes.long(), strict=True)], 1)
    turned = (vectors.double()[:, None] * form.rotation.double()).tolist()
    assert torch.equal(form.decode(), torch.tensor([[fsum(one) for one in row] for row in turned], dtype=torch.float32))


def test_kernels_are_blocks() -> None:
    widths = {name: len(form.rotation) for name, form in cartesian_quantize(nets.artifact()).stored.items()}
    assert (widths["stem.weight"], widths["kernel.weight"], widths["point.weight"]) == (18, 30, 8)


@pytest.mark.parametrize("wrong", [{"block": 1}, {"parts": 1}, {"codebook_size": 257}, {"codebook_size": 1}])
def test_settings_out_of_range(wrong: dict[str, int]) -> None:
    with pytest.raises(RecipeError, match="cartesian_quantize needs block >= 2, parts >= 2 and codebook_size from 2"):
        cartesian_quantize(nets.artifact(), **wrong)
