"""The compiled kernels: see `distill.native`.

Without a compiler nothing fails: `library` returns None, and layers compute the same with PyTorch.
"""

import ctypes
import logging
import subprocess
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from distill import native
from distill.errors import DistillError

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.cpp")


class Shape(ctypes.Structure):
    """One layer and its input, as ``kernels.cpp`` reads it."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            *("images", "channels", "height", "width", "outputs", "out_height", "out_width"),
            *("kernel_height", "kernel_width", "stride_height", "stride_width"),
            *("padding_height", "padding_width", "dilation_height", "dilation_width"),
            *("in_block", "out_block", "phase_height", "phase_width", "threads"),
        )
    ]


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None, with a warning, where they cannot be compiled."""
    try:
        kernels = ctypes.CDLL(str(native.built(SOURCE, native.cache_folder())))
    except (DistillError, OSError, subprocess.CalledProcessError) as error:
        log.warning(
            "sparse and blocked layers run in PyTorch, for the C++ compiler does not work: %s", native.reason(error)
        )
        return None
    kernels.sparse_slack.restype = ctypes.c_int64
    for kernel, pointers in ((kernels.sparse_conv, 7), (kernels.blocked_conv, 4)):
        kernel.restype, kernel.argtypes = None, [ctypes.POINTER(Shape), *[ctypes.c_void_p] * pointers]
    return kernels


def call(name: str, shape: Shape, *tensors: Tensor | None) -> None:
    """Run one kernel on contiguous tensors; None is a null pointer."""
    kernels = library()
    assert kernels is not None
    pointers = (None if tensor is None else tensor.data_ptr() for tensor in tensors)
    getattr(kernels, name)(ctypes.byref(shape), *pointers)


def runs(inputs: Tensor, weight: Tensor) -> bool:
    """Whether the kernels can take these: float32 on the CPU, with nothing to differentiate, trace or compile."""
    return (
        type(inputs) is Tensor
        and not torch.compiler.is_compiling()
        and all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in (inputs, weight))
        and not (torch.is_grad_enabled() and (inputs.requires_grad or weight.requires_grad))
        and library() is not None
    )
