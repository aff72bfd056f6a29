"""Codebooks: k-means over blocks of weights.

Lloyd: Least squares quantization in PCM. IEEE Transactions on Information Theory 28 (1982).
"""

from math import prod

import torch
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.artifact.storage import need

ITERATIONS = 30
ROWS = 2**15
"""Blocks compared with the codebook at once."""


def k_means(rows: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Lloyd's algorithm from k-means++ (Arthur & Vassilvitskii, 2007); empty clusters go where the error is largest."""
    means = rows[torch.randint(len(rows), (1,), generator=generator)]
    far = (rows - means).square().sum(1)
    for _ in range(size - 1):
        weights = far if far.any() else torch.ones_like(far)
        means = torch.cat([means, rows[torch.multinomial(weights, 1, generator=generator)]])
        far = far.minimum((rows - means[-1]).square().sum(1))
    codes = nearest(rows, means)
    for _ in range(ITERATIONS):
        means = centred(rows, codes, size)
        before, codes = codes, nearest(rows, means)
        if torch.equal(before, codes):
            break
    return means


def centred(rows: Tensor, codes: Tensor, size: int) -> Tensor:
    """The mean of the rows of each code, and for codes without any the rows that are farthest from their means."""
    counts = torch.bincount(codes, minlength=size)
    means = rows.new_zeros(size, rows.shape[1]).index_add(0, codes, rows) / counts.clamp(min=1)[:, None]
    errors = (rows - means[codes]).square().sum(1)
    means[counts == 0] = rows[errors.topk(int((counts == 0).sum())).indices]
    return means


def nearest(rows: Tensor, means: Tensor) -> Tensor:
    """The position of the mean that each row is nearest to."""
    sizes = means.square().sum(1) / 2
    return torch.cat([(sizes - part @ means.T).argmin(1) for part in rows.split(ROWS)])


def validate_codebooks(codes: Tensor, codebooks: Tensor, claimed: list[int], axis: int, shape: tuple[int, ...]) -> None:
    """Refuse codes and codebooks that do not fit each other or a tensor of that shape.

    Raises:
        ValueError: they do not.
    """
    need(claimed == list(shape) and 0 <= axis < len(shape), f"blocks along axis {axis} of {claimed}")
    need(codebooks.dtype == torch.bfloat16 and codebooks.dim() == 3, "codebooks of another type or shape")
    books, entries, block = codebooks.shape
    need(books > 0 and 0 < entries <= 256 and block > 0, f"codebooks of shape {list(codebooks.shape)}")
    need(codes.dtype == torch.uint8 and codes.dim() == 2 and len(codes) == books, "codes of another type or shape")


def block_of(artifact: Artifact, name: str, block: int) -> int:
    """How many neighbouring values of that weight are a block: a kernel where it has kernels, else ``block``."""
    module = artifact.model.get_submodule(name.rpartition(".")[0])
    kernel = prod(module.kernel_size) if isinstance(module, nn.modules.conv._ConvNd) else 1
    return kernel if kernel > 1 else block


def entries(size: int, blocks: int) -> int:
    """How many a codebook has: no more than a quarter of the blocks that it is for."""
    return max(1, min(size, blocks // 4))
