"""Matrix decompositions that always end: LAPACK's iterations fail on some finite matrices, above all on those whose
values lie far from 1 or most of whose rows are zero.

A matrix is divided by its largest value, rows and columns of zeros are left out, and NumPy, whose LAPACK is another
one, gets what PyTorch's fails on. Everything is computed in float64.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.errors import TrainingError


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (n), ascending, and eigenvectors (n, n), one to a column, of a symmetric matrix; float64.

    Raises:
        TrainingError: the matrix has NaN or infinite values.
    """
    scaled, scale = _scaled(matrix)
    rows = scaled.any(1)
    vectors = torch.eye(len(scaled), dtype=scaled.dtype, device=scaled.device)
    values = scaled.new_zeros(len(scaled))
    if rows.any():
        kept = torch.where(rows)[0]
        values[kept], vectors[kept[:, None], kept] = _first(
            (torch.linalg.eigh, _in_numpy(np.linalg.eigh)), scaled[kept[:, None], kept]
        )
    order = values.argsort(stable=True)
    return values[order] * scale, vectors[:, order]


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (n, k), singular values (k), largest first, and V^T (k, m) with k = min(n, m); float64.

    Raises:
        TrainingError: the matrix has NaN or infinite values.
    """
    scaled, scale = _scaled(matrix)
    rows, columns = torch.where(scaled.any(1))[0], torch.where(scaled.any(0))[0]
    if min(len(rows), len(columns)) < min(scaled.shape):  # singular vectors of zeros still have to be orthogonal
        rows, columns = (torch.arange(size, device=scaled.device) for size in scaled.shape)
    u, values, vh = _first((_thin_svd, _in_numpy(_thin_numpy_svd)), scaled[rows[:, None], columns])
    left, right = scaled.new_zeros(len(scaled), len(values)), scaled.new_zeros(len(values), scaled.shape[1])
    left[rows], right[:, columns] = u, vh
    return left, values * scale, right


def singular_values(matrix: Tensor) -> Tensor:
    """Those of `svd`, without its vectors: (min(n, m)), largest first."""
    scaled, scale = _scaled(matrix)
    kept = scaled[scaled.any(1)][:, scaled.any(0)]
    found = kept.new_zeros(min(scaled.shape))
    if kept.numel():
        (values,) = _first((_values, _in_numpy(_numpy_values)), kept)
        found[: len(values)] = values
    return found * scale


def solve_spd(matrix: Tensor, right: Tensor) -> Tensor:
    """X with ``matrix @ X = right`` for a symmetric, positive definite matrix; where it is singular, the least X."""
    solution, failed = torch.linalg.solve_ex(matrix, right)
    if not failed and solution.isfinite().all():
        return solution
    values, vectors = eigh(matrix)
    floor = values[-1] * len(values) * torch.finfo(values.dtype).eps
    return vectors / values.clamp(min=floor) * (values > floor) @ (vectors.T @ right)


def _scaled(matrix: Tensor) -> tuple[Tensor, float]:
    """The matrix divided by its largest value, and that value; zeros by 1."""
    matrix = matrix.detach().double()
    if not matrix.isfinite().all():
        raise TrainingError(
            f"a matrix of {' x '.join(map(str, matrix.shape))} to decompose has NaN or infinite values: "
            "the network's weights or its outputs on calibration images are too large"
        )
    scale = float(matrix.abs().max()) if matrix.numel() else 0.0
    return (matrix / scale, scale) if scale > 0 else (matrix, 1.0)


def _first(ways: tuple[Callable[[Tensor], Any], ...], matrix: Tensor) -> Any:
    """What the first of the implementations finds that does not fail."""
    for way in ways:
        try:
            return way(matrix)
        except (torch.linalg.LinAlgError, np.linalg.LinAlgError):
            continue
    raise TrainingError(f"no decomposition of a matrix of {' x '.join(map(str, matrix.shape))} converges")


def _in_numpy(function: Callable[[np.ndarray], Any]) -> Callable[[Tensor], Any]:
    return lambda matrix: tuple(torch.from_numpy(part).to(matrix) for part in function(matrix.cpu().numpy()))


def _thin_svd(matrix: Tensor) -> Any:
    return torch.linalg.svd(matrix, full_matrices=False)


def _thin_numpy_svd(matrix: np.ndarray) -> Any:
    return np.linalg.svd(matrix, full_matrices=False)


def _values(matrix: Tensor) -> tuple[Tensor]:
    return (torch.linalg.svdvals(matrix),)


def _numpy_values(matrix: np.ndarray) -> tuple[np.ndarray]:
    return (np.linalg.svd(matrix, compute_uv=False),)
