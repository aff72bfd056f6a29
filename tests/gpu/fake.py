"""A GPU that is only pretended: tensors that have a shape and the device "cuda", but no values.

Whatever mixes devices fails as it would on a GPU. So does whatever reads a value, which on a GPU is no error but waits
for all that was sent to it before.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from distill.batch import map_tensors

Module = TypeVar("Module", bound=nn.Module)


class FakeGPU:
    """Copies modules and nests of tensors to the device that is pretended; compute with them inside `active`."""

    def __init__(self) -> None:
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)

    def tensors(self, nest: Any) -> Any:
        """Each requires gradients where the original does."""
        return map_tensors(lambda tensor: self._moved(tensor.detach()).requires_grad_(tensor.requires_grad), nest)

    def module(self, module: Module) -> Module:
        """A copy, its parameters and buffers on the device; other tensors that it keeps stay where they are."""
        moved = copy.deepcopy(module)
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            return moved._apply(self._moved)
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(before)

    @contextmanager
    def active(self) -> Iterator[None]:
        """While it lasts, tensors are made without values, on the device that they are made for."""
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            with self.mode:
                yield
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(before)

    def _moved(self, tensor: Tensor) -> Tensor:
        with self.mode:
            return self.mode.from_tensor(tensor).to("cuda")
