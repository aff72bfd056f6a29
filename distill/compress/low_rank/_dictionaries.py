"""Kernels over the inputs of a layer: which rows of its weight are kept, and how the others follow from these.

A kernel says how alike two rows of a weight (inputs, outputs) are. Rows are kept where the kernel predicts them least
from those kept before: a pivoted Cholesky decomposition (Harbrecht, Peters & Schneider: On the low-rank approximation
by the pivoted Cholesky decomposition. Applied Numerical Mathematics 62(4), 2012).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from distill.compress._decompositions import solve_spd

RESOLUTION = 1e-9
"""Of the largest variance: a row whose own is less follows from the rows kept before it."""


def squared_exponential(grid: Sequence[int], length: float) -> Tensor:
    """exp(-d^2 / (2 length^2)) for inputs of one channel that lie d pixels apart, 0 for inputs of different channels.

    Args:
        grid: channels, height and width of the inputs.
        length: in pixels.

    Returns:
        (inputs, inputs), float64.
    """
    channels, *sizes = grid
    kernel = torch.eye(channels, dtype=torch.float64)
    for size in sizes:  # of a sum of squares: a product over the axes
        places = torch.arange(size, dtype=torch.float64)
        kernel = torch.kron(kernel, torch.exp(-((places[:, None] - places) ** 2) / (2 * length**2)))
    return kernel


def kept_first(kernel: Tensor, importance: Tensor) -> Tensor:
    """Rows in the order in which they are kept; rows that the kernel predicts exactly from earlier ones are left out.

    Args:
        kernel: (inputs, inputs), positive semidefinite.
        importance: (inputs), what the variance of each row counts, 0 or more.
    """
    scale = importance.sqrt()
    left = kernel.diagonal() * importance
    floor = RESOLUTION * float(left.max())
    factors = kernel.new_empty(len(kernel), len(kernel))
    order: list[int] = []
    while len(order) < len(kernel) and float(left.max()) > floor:
        pivot, done = int(left.argmax()), len(order)
        row = kernel[pivot] * scale[pivot] * scale
        factors[done] = (row - factors[:done, pivot] @ factors[:done]) / left[pivot].sqrt()
        left = (left - factors[done].square()).clamp(min=0)
        left[pivot] = 0
        order.append(pivot)
    return torch.tensor(order, dtype=torch.long)


def predictions(kernel: Tensor, kept: Tensor, ridge: float) -> Tensor:
    """Kernel ridge regression: rows of the dictionary for the rows that are not kept, K_rk (K_kk + ridge I)^-1.

    Args:
        kernel: (inputs, inputs).
        kept: positions of the kept rows.
        ridge: in units of the mean variance of the kept rows.

    Returns:
        (inputs - kept, kept), in the order of the inputs.
    """
    among = kernel[kept][:, kept]
    damping = ridge * among.diagonal().mean() * torch.eye(len(kept), dtype=kernel.dtype)
    rest = rows_in_order(len(kernel), kept)[len(kept) :]
    return solve_spd(among + damping, kernel[kept][:, rest]).T


def rows_in_order(inputs: int, kept: Tensor) -> Tensor:
    """Positions of all rows: first those that are kept, then the others, ascending."""
    rest = torch.ones(inputs, dtype=torch.bool, device=kept.device)
    rest[kept] = False
    return torch.cat([kept, torch.where(rest)[0]])


def dictionary(predicted: Tensor, order: Tensor) -> Tensor:
    """U (inputs, kept) of W = U V: the identity where rows are kept, ``predicted`` elsewhere.

    Args:
        predicted: (inputs - kept, kept).
        order: where each input is in `rows_in_order`, the inverse of that permutation.
    """
    identity = torch.eye(predicted.shape[1], dtype=predicted.dtype, device=predicted.device)
    return torch.cat([identity, predicted])[order]


def units(predicted: Tensor) -> Tensor:
    """What kept rows are multiplied by where they are trained, (kept): roots of the row sums of |U^T U|.

    A row moves all rows that follow from it: in these units one step moves the weight no farther than it moves that of
    a dense layer, and one learning rate suits both.
    """
    product = predicted.T @ predicted
    return (product.abs().sum(1) + 1).sqrt()  # the identity adds 1 to the diagonal
