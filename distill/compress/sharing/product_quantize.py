"""Gong et al.: Compressing Deep Convolutional Networks using Vector Quantization. arXiv:1412.6115, section 3;
Stock et al.: And the Bit Goes Down. arXiv:1907.05686, section 3, for convolutions.

Departs from Gong et al.: one codebook for all columns of a weight, as Stock et al. have it, since a small network would
pay more for codebooks than for codes.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distill.artifact import Artifact
from distill.artifact.storage import need
from distill.compress import hook
from distill.compress._weights import adopt, channels_of, slice_count, slices, unsliced, weights_of
from distill.compress.sharing._codebooks import block_of, entries, k_means, nearest, validate_codebooks
from distill.errors import RecipeError
from distill.registry import form
from distill.registry.ranges import CodebookSize, Index, Seed, Several


@hook("product_quantize")
def product_quantize(
    artifact: Artifact,
    *,
    block: Several = 4,
    codebook_size: CodebookSize = 256,
    residual: Index = 0,
    seed: Seed = 0,
    layers: list[str] | None = None,
) -> Artifact:
    """A code for each block of neighbouring inputs of a channel, into a codebook; `finetune` trains the codebooks.

    Args:
        artifact: what to compress.
        block: weights per code, at least 2; a k x k kernel is a block of its own, whatever its size.
        codebook_size: blocks in a codebook, 2 to 256, but no more than a quarter of the blocks that a weight has.
        residual: further stages, each with a codebook and codes for what the ones before it left over.
        seed: of k-means.
        layers: globs of module paths; without any, every layer.

    Raises:
        RecipeError: a setting is out of range, a glob matches nothing, or the artifact is encoded.
        TrainingError: a weight holds values that are not finite.
    """
    if block < 2 or not 2 <= codebook_size <= 256 or residual < 0:
        raise RecipeError(
            "product_quantize needs block >= 2, codebook_size from 2 to 256 and residual >= 0, "
            f"not {block}, {codebook_size} and {residual}"
        )
    stored = {}
    for name, weight in weights_of(artifact, "product_quantize", layers).items():
        rows = slices(weight.cpu(), axis := channels_of(artifact, name), block_of(artifact, name, block))
        codes, codebooks = fit_codebooks(rows, codebook_size, 1 + residual, torch.Generator().manual_seed(seed))
        stored[name] = ProductQuantized(codes=codes, codebooks=codebooks, shape=list(weight.shape), axis=axis)
    return adopt("product_quantize", artifact, stored)


@form("product_quantized")
@dataclass(frozen=True, eq=False, kw_only=True)
class ProductQuantized:
    """Codes of blocks; a block is the sum of its entries in all codebooks."""

    codes: Tensor
    """uint8, (stages, blocks)."""
    codebooks: Tensor
    """bfloat16, (stages, entries, block)."""
    shape: list[int]
    """Of the tensor."""
    axis: int
    """Blocks lie within the slices along this one."""
    common: bool = False

    def validate(self, shape: tuple[int, ...]) -> None:
        validate_codebooks(self.codes, self.codebooks, self.shape, self.axis, shape)
        blocks = slice_count(shape, self.axis, self.codebooks.shape[2])
        need(self.codes.shape[1] == blocks, f"codes of {self.codes.shape[1]} blocks")

    def nbytes(self) -> int:
        return self.codes.nbytes + self.codebooks.nbytes

    def decode(self) -> Tensor:
        pairs = zip(self.codebooks.float(), self.codes.long(), strict=True)
        rows = torch.stack([book.index_select(0, codes) for book, codes in pairs]).sum(0)
        return unsliced(rows, tuple(self.shape), self.axis)

    def requantize(self, tensor: Tensor) -> "ProductQuantized":
        """The nearest codes, stage by stage, with the codebooks as they are."""
        rest, codes = slices(tensor.float(), self.axis, self.codebooks.shape[2]), []
        for book in self.codebooks.float():
            codes.append(nearest(rest, book))
            rest = rest - book[codes[-1]]
        return replace(self, codes=torch.stack(codes).to(torch.uint8))

    def shared(self) -> Tensor:
        return self.codebooks.float()

    def with_shared(self, values: Tensor) -> "ProductQuantized":
        return replace(self, codebooks=values.bfloat16())


def fit_codebooks(rows: Tensor, size: int, stages: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Codes (stages, rows) and codebooks (stages, entries, block), the later ones for what the earlier leave over."""
    size = entries(size, len(rows))
    codes, codebooks = [], []
    for _ in range(stages):
        codebooks.append(k_means(rows, size, generator).bfloat16())
        codes.append(nearest(rows, codebooks[-1].float()))
        rows = rows - codebooks[-1].float()[codes[-1]]
    return torch.stack(codes).to(torch.uint8), torch.stack(codebooks)
