"""Runs compressed networks straight from their files with NumPy and the decoders' libraries; PyTorch is not needed."""

from distill.runtime.network import Network
from distill.runtime.reading import load

__all__ = ["Network", "load"]
