"""Norouzi & Fleet: Cartesian k-means. IEEE Conference on Computer Vision and Pattern Recognition (2013), section 4.

Product quantization of vectors that are rotated first, by the rotation that leaves the least error: each block of a
rotated vector has a codebook of its own. Departs from the paper: a vector is a few neighbouring blocks of a weight, not
all inputs of a channel, whose rotation would have as many values as the weight itself.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distill.artifact import Artifact
from distill.artifact.storage import need
from distill.compress import hook
from distill.compress._decompositions import svd
from distill.compress._weights import adopt, channels_of, slice_count, slices, unsliced, weights_of
from distill.compress.sharing._codebooks import block_of, centred, entries, k_means, nearest, validate_codebooks
from distill.errors import RecipeError
from distill.registry import form
from distill.registry.ranges import CodebookSize, Seed, Several

ITERATIONS = 30


@hook("cartesian_quantize")
def cartesian_quantize(
    artifact: Artifact,
    *,
    block: Several = 4,
    parts: Several = 2,
    codebook_size: CodebookSize = 256,
    seed: Seed = 0,
    layers: list[str] | None = None,
) -> Artifact:
    """A code for each block of rotated inputs; `finetune` trains the codebooks, the rotation stays.

    Beside the codes a weight keeps ``parts`` codebooks and (parts * block)**2 values of its rotation.

    Args:
        artifact: what to compress.
        block: weights per code, at least 2; a k x k kernel is a block of its own, whatever its size.
        parts: blocks that are rotated together, at least 2.
        codebook_size: entries of a codebook, 2 to 256, but no more than a quarter of the blocks it is for.
        seed: of k-means.
        layers: globs of module paths; without any, every layer.

    Raises:
        RecipeError: a setting is out of range, a glob matches nothing, or the artifact is encoded.
        TrainingError: a weight holds values that are not finite.
    """
    if block < 2 or parts < 2 or not 2 <= codebook_size <= 256:
        raise RecipeError(
            "cartesian_quantize needs block >= 2, parts >= 2 and codebook_size from 2 to 256, "
            f"not {block}, {parts} and {codebook_size}"
        )
    stored = {}
    for name, weight in weights_of(artifact, "cartesian_quantize", layers).items():
        axis = channels_of(artifact, name)
        rows = slices(weight.cpu(), axis, parts * block_of(artifact, name, block))
        rotation, codes, codebooks = fit_rotation(rows, parts, codebook_size, torch.Generator().manual_seed(seed))
        stored[name] = CartesianQuantized(
            codes=codes, codebooks=codebooks, rotation=rotation, shape=list(weight.shape), axis=axis
        )
    return adopt("cartesian_quantize", artifact, stored)


@form("cartesian_quantized")
@dataclass(frozen=True, eq=False, kw_only=True)
class CartesianQuantized:
    """Codes of the blocks of rotated vectors."""

    codes: Tensor
    """uint8, (parts, vectors)."""
    codebooks: Tensor
    """bfloat16, (parts, entries, block)."""
    rotation: Tensor
    """bfloat16, (parts * block, parts * block): a vector times this is cut into blocks."""
    shape: list[int]
    """Of the tensor."""
    axis: int
    """Vectors lie within the slices along this one."""
    common: bool = False

    def validate(self, shape: tuple[int, ...]) -> None:
        validate_codebooks(self.codes, self.codebooks, self.shape, self.axis, shape)
        width = self.codebooks.shape[0] * self.codebooks.shape[2]
        need(
            self.rotation.dtype == torch.bfloat16 and self.rotation.shape == (width, width),
            "a rotation of another size",
        )
        vectors = slice_count(shape, self.axis, width)
        need(self.codes.shape[1] == vectors, f"codes of {self.codes.shape[1]} vectors")

    def nbytes(self) -> int:
        return self.codes.nbytes + self.codebooks.nbytes + self.rotation.nbytes

    def decode(self) -> Tensor:
        # float64: sums of float32 depend on the number of threads.
        pairs = zip(self.codebooks.double(), self.codes.long(), strict=True)
        rotated = torch.cat([book.index_select(0, codes) for book, codes in pairs], 1)
        return unsliced((rotated @ self.rotation.double().T).float(), tuple(self.shape), self.axis)

    def requantize(self, tensor: Tensor) -> "CartesianQuantized":
        """The nearest codes, with rotation and codebooks as they are."""
        blocks = _blocks(slices(tensor.float(), self.axis, len(self.rotation)), self.rotation, len(self.codebooks))
        codes = [nearest(*pair) for pair in zip(blocks, self.codebooks.float(), strict=True)]
        return replace(self, codes=torch.stack(codes).to(torch.uint8))

    def shared(self) -> Tensor:
        return self.codebooks.float()

    def with_shared(self, values: Tensor) -> "CartesianQuantized":
        return replace(self, codebooks=values.bfloat16())


def fit_rotation(rows: Tensor, parts: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A rotation, codes (parts, rows) and codebooks (parts, entries, block), each the best for the other two in turn.

    No rotation, which is where it starts, has a smaller error at the end.
    """
    size = entries(size, len(rows))
    rotation = torch.eye(rows.shape[1])
    books = [k_means(part, size, generator) for part in _blocks(rows, rotation, parts)]
    for _ in range(ITERATIONS):
        blocks = _blocks(rows, rotation, parts)
        codes = [nearest(*pair) for pair in zip(blocks, books, strict=True)]
        books = [centred(part, some, size) for part, some in zip(blocks, codes, strict=True)]
        decoded = torch.cat([book[some] for book, some in zip(books, codes, strict=True)], 1)
        left, _, right = svd(rows.T @ decoded)
        rotation = (left @ right).float()  # the orthogonal Procrustes problem
    kept = rotation.bfloat16(), torch.stack(books).bfloat16()
    blocks = _blocks(rows, kept[0], parts)
    codes = [nearest(*pair) for pair in zip(blocks, kept[1].float(), strict=True)]
    return kept[0], torch.stack(codes).to(torch.uint8), kept[1]


def _blocks(rows: Tensor, rotation: Tensor, parts: int) -> tuple[Tensor, ...]:
    """The parts of rotated vectors."""
    return (rows @ rotation.float()).chunk(parts, 1)
