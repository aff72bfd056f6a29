"""Decompositions end for every finite matrix, with what NumPy finds for a harmless one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distill.compress import _decompositions
from distill.compress._decompositions import eigh, singular_values, solve_spd, svd
from distill.errors import TrainingError

matrices = st.builds(
    lambda rows, columns, zeros, power, seed: _matrix(rows, columns, zeros, power, seed),
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([-150, -20, 0, 20, 150]),
    st.integers(0, 999),
)


def _matrix(rows: int, columns: int, zeros: float, power: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=generator, dtype=torch.float64) * 10.0**power
    matrix[torch.rand(rows, generator=generator) < zeros] = 0
    return matrix


@settings(max_examples=200, deadline=None)
@given(matrix=matrices)
def test_svd_multiplies_back_and_its_vectors_are_orthogonal(matrix: Tensor) -> None:
    u, values, vh = svd(matrix)
    scale = max(float(matrix.abs().max()), 1e-300)
    torch.testing.assert_close(u / 1 * (values / scale) @ vh, matrix / scale)
    for vectors in (u.T @ u, vh @ vh.T):
        torch.testing.assert_close(vectors, torch.eye(min(matrix.shape), dtype=torch.float64))
    assert (values.diff() <= 0).all()
    assert (values >= 0).all()
    torch.testing.assert_close(singular_values(matrix) / scale, values / scale)


@settings(max_examples=200, deadline=None)
@given(matrix=matrices)
def test_eigh_multiplies_back_and_ascends(matrix: Tensor) -> None:
    scale = max(float(matrix.abs().max()), 1e-300)
    symmetric = (matrix / scale @ matrix.T / scale) * scale
    values, vectors = eigh(symmetric)
    torch.testing.assert_close(vectors * (values / scale) @ vectors.T, symmetric / scale)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(len(symmetric), dtype=torch.float64))
    assert (values.diff() >= 0).all()
    expected = np.linalg.eigvalsh((symmetric / scale).numpy())
    np.testing.assert_allclose((values / scale).numpy(), expected, atol=1e-10)


def test_what_pytorch_cannot_decompose_numpy_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise torch.linalg.LinAlgError("linalg: The algorithm failed to converge")

    matrix = _matrix(6, 4, 0.0, 0, 0)
    expected = eigh(matrix @ matrix.T), svd(matrix), singular_values(matrix)
    for name in ("eigh", "svd", "svdvals"):
        monkeypatch.setattr(_decompositions.torch.linalg, name, fails)
    torch.testing.assert_close(eigh(matrix @ matrix.T)[0], expected[0][0])
    torch.testing.assert_close(svd(matrix)[1], expected[1][1])
    torch.testing.assert_close(singular_values(matrix), expected[2])
    for name in ("eigh", "svd"):
        monkeypatch.setattr(
            _decompositions.np.linalg, name, lambda *_, **__: (_ for _ in ()).throw(np.linalg.LinAlgError)
        )
    with pytest.raises(TrainingError, match="no decomposition of a matrix of 6 x 4 converges"):
        svd(matrix)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_nan_is_named(broken: float) -> None:
    matrix = torch.eye(3)
    matrix[1, 1] = broken
    for decompose in (eigh, svd, singular_values):
        with pytest.raises(TrainingError, match="a matrix of 3 x 3 to decompose has NaN or infinite values"):
            decompose(matrix)


def test_equations_are_solved_also_where_they_say_the_same_twice() -> None:
    matrix = torch.tensor([[2.0, 2.0], [2.0, 2.0]], dtype=torch.float64)
    right = torch.tensor([[4.0], [4.0]], dtype=torch.float64)
    torch.testing.assert_close(solve_spd(matrix, right), torch.ones(2, 1, dtype=torch.float64))
    regular = matrix + torch.eye(2)
    torch.testing.assert_close(regular @ solve_spd(regular, right), right)
