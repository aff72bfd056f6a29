"""What moves, joins, cuts and fills arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from distill.runtime.operators.registry import operator


@operator("sym_size")
def size(input: np.ndarray, dim: int) -> int:
    return input.shape[dim]


@operator("getitem")
def getitem(input: Any, index: int) -> Any:
    return input[index]


@operator("view", "reshape", "_unsafe_view")
def reshape(input: np.ndarray, size: list[int] | None = None, shape: list[int] | None = None) -> np.ndarray:
    wanted = size if size is not None else shape
    assert wanted is not None
    return input.reshape(wanted)


@operator("flatten")
def flatten(input: np.ndarray, start_dim: int = 0, end_dim: int = -1) -> np.ndarray:
    end = end_dim % input.ndim
    return input.reshape(*input.shape[:start_dim], -1, *input.shape[end + 1 :])


@operator("unflatten")
def unflatten(input: np.ndarray, dim: int, sizes: list[int]) -> np.ndarray:
    axis = dim % input.ndim
    return input.reshape(*input.shape[:axis], *sizes, *input.shape[axis + 1 :])


@operator("transpose")
def transpose(input: np.ndarray, dim0: int, dim1: int) -> np.ndarray:
    return input.swapaxes(dim0, dim1)


@operator("t", "numpy_T")
def reverse(input: np.ndarray) -> np.ndarray:
    return input.T


@operator("permute")
def permute(input: np.ndarray, dims: list[int]) -> np.ndarray:
    return input.transpose(dims)


@operator("squeeze")
def squeeze(input: np.ndarray, dim: int | list[int] | None = None) -> np.ndarray:
    axes = range(input.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    return input.squeeze(tuple(axis for axis in axes if input.shape[axis] == 1))


@operator("unsqueeze")
def unsqueeze(input: np.ndarray, dim: int) -> np.ndarray:
    return np.expand_dims(input, dim)


@operator("expand")
def expand(input: np.ndarray, size: list[int], implicit: bool = False) -> np.ndarray:
    """-1 keeps an axis as it is."""
    first = len(size) - input.ndim
    return np.broadcast_to(
        input, [input.shape[axis - first] if wanted == -1 else wanted for axis, wanted in enumerate(size)]
    )


@operator("repeat")
def repeat(input: np.ndarray, repeats: list[int]) -> np.ndarray:
    return np.tile(input, repeats)


@operator("cat")
def cat(tensors: list[np.ndarray], dim: int = 0) -> np.ndarray:
    return np.concatenate(tensors, dim)


@operator("stack")
def stack(tensors: list[np.ndarray], dim: int = 0) -> np.ndarray:
    return np.stack(tensors, dim)


@operator("slice")
def cut(input: np.ndarray, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> np.ndarray:
    return input[(slice(None),) * (dim % input.ndim) + (slice(start, end, step),)]


@operator("select")
def select(input: np.ndarray, dim: int, index: int) -> np.ndarray:
    return input[(slice(None),) * (dim % input.ndim) + (index,)]


@operator("index_select")
def index_select(input: np.ndarray, dim: int, index: np.ndarray) -> np.ndarray:
    return input.take(index, dim)


@operator("index")
def index(input: np.ndarray, indices: list[np.ndarray | None]) -> np.ndarray:
    return input[tuple(slice(None) if one is None else one for one in indices)]


@operator("gather")
def gather(input: np.ndarray, dim: int, index: np.ndarray, sparse_grad: bool = False) -> np.ndarray:
    return np.take_along_axis(input, index, dim)


@operator("split")
def split(
    input: np.ndarray, split_size: int | list[int] | None = None, dim: int = 0, split_sizes: list[int] | None = None
) -> list[np.ndarray]:
    sizes = split_sizes if split_sizes is not None else split_size
    if isinstance(sizes, int):
        return np.split(input, range(sizes, input.shape[dim], sizes), dim)
    assert sizes is not None
    return np.split(input, np.cumsum(sizes)[:-1], dim)


@operator("split_with_sizes")
def split_with_sizes(input: np.ndarray, split_sizes: list[int], dim: int = 0) -> list[np.ndarray]:
    return split(input, split_sizes, dim)


@operator("chunk")
def chunk(input: np.ndarray, chunks: int, dim: int = 0) -> list[np.ndarray]:
    return split(input, -(-input.shape[dim] // chunks), dim)


@operator("unbind")
def unbind(input: np.ndarray, dim: int = 0) -> list[np.ndarray]:
    return list(np.moveaxis(input, dim, 0))


@operator("flip")
def flip(input: np.ndarray, dims: list[int]) -> np.ndarray:
    return np.flip(input, tuple(dims))


@operator("roll")
def roll(input: np.ndarray, shifts: list[int], dims: Sequence[int] = ()) -> np.ndarray:
    return np.roll(input, tuple(shifts), tuple(dims) or None)


@operator("channel_shuffle")
def channel_shuffle(input: np.ndarray, groups: int) -> np.ndarray:
    """Zhang et al.: ShuffleNet. arXiv:1707.01083, section 3.1."""
    batch, channels, *rest = input.shape
    return input.reshape(batch, groups, channels // groups, *rest).swapaxes(1, 2).reshape(input.shape)


@operator("pad", "constant_pad_nd")
def pad(input: np.ndarray, pad: list[int], mode: str = "constant", value: float | None = None) -> np.ndarray:
    """Numbers in ``pad``: before and after the last axis, then the one before it, and so on; below 0 they cut."""
    ends = [(0, 0)] * (input.ndim - len(pad) // 2) + [(pad[at], pad[at + 1]) for at in range(len(pad) - 2, -1, -2)]
    cuts = tuple(slice(-min(before, 0), min(after, 0) or None) for before, after in ends)
    widths = [(max(before, 0), max(after, 0)) for before, after in ends]
    if mode == "constant":
        return np.pad(input[cuts], widths, constant_values=value or 0)
    return np.pad(input[cuts], widths, mode={"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode])  # type: ignore[call-overload]


@operator("new_zeros", "zeros")
def zeros(size: list[int], input: np.ndarray | None = None, dtype: str | None = None) -> np.ndarray:
    return np.zeros(size, dtype or (np.float32 if input is None else input.dtype))


@operator("full", "new_full")
def full(size: list[int], fill_value: float, input: np.ndarray | None = None, dtype: str | None = None) -> np.ndarray:
    return np.full(size, fill_value, dtype or (np.float32 if input is None else input.dtype))


@operator("arange")
def arange(end: float, start: float = 0, step: float = 1, dtype: str | None = None) -> np.ndarray:
    return np.arange(start, end, step, dtype=np.dtype(dtype) if dtype else None)


@operator("one_hot")
def one_hot(input: np.ndarray, num_classes: int = -1) -> np.ndarray:
    count = int(input.max()) + 1 if num_classes == -1 else num_classes
    return (input[..., None] == np.arange(count)).astype(np.int64)


@operator("scatter")
def scatter(
    input: np.ndarray, dim: int, index: np.ndarray, src: np.ndarray | None = None, value: float = 0
) -> np.ndarray:
    result = input.copy()
    given = value if src is None else src[tuple(slice(length) for length in index.shape)]
    np.put_along_axis(result, index, given, dim)
    return result


@operator("slice_scatter")
def slice_scatter(
    input: np.ndarray,
    src: np.ndarray,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> np.ndarray:
    result = input.copy()
    cut(result, dim, start, end, step)[...] = src
    return result


@operator("zero", "zeros_like")
def zeros_like(input: np.ndarray, dtype: str | None = None) -> np.ndarray:
    return np.zeros(input.shape, dtype or input.dtype)


@operator("fill", "full_like")
def fill(
    input: np.ndarray, value: float | None = None, fill_value: float | None = None, dtype: str | None = None
) -> np.ndarray:
    return np.full(input.shape, fill_value if value is None else value, dtype or input.dtype)


@operator("_to_copy", "to")
def convert(input: np.ndarray, dtype: str | None = None) -> np.ndarray:
    return input if dtype is None else input.astype(dtype)
