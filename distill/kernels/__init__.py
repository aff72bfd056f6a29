"""Layers that compute convolutions in ways that PyTorch does not: sparse ones, and ones without any workspace.

>>> network = distill.load("student.safetensors")  # pruned
>>> faster = distill.kernels.sparse(network, images)  # after `import distill.kernels`
"""

from distill.kernels.blocked_conv import BlockedConv2d, pack, unpack
from distill.kernels.geometry import Geometry
from distill.kernels.performance import Machine, measured, sparse
from distill.kernels.sparse_conv import SparseConv2d

__all__ = ["BlockedConv2d", "Geometry", "Machine", "SparseConv2d", "measured", "pack", "sparse", "unpack"]
