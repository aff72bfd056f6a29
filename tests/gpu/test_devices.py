"""Losses on a GPU that is only pretended: no tensor is left on the CPU, and none is read back.

Forward passes alone: backward, PyTorch asks the GPU itself.
"""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from distill.losses import loss as losses
from tests.gpu.fake import FakeGPU
from tests.losses.test_contract import term, with_student

COUNTING = {"cirkd_memory"}
"""Losses whose next tensor is as long as there are pixels of known classes: they wait for that number."""


def test_a_tensor_that_is_left_on_the_cpu_is_noticed() -> None:
    gpu = FakeGPU()
    images = gpu.tensors(torch.zeros(2, 3))
    with gpu.active():
        assert (images + 1).device.type == "cuda"
        with pytest.raises(RuntimeError, match="device"):
            images + torch.zeros(2, 3)


def test_a_value_that_is_read_back_is_noticed() -> None:
    gpu = FakeGPU()
    images = gpu.tensors(torch.zeros(2, 3))
    with gpu.active():
        with pytest.raises(DataDependentOutputException):
            images.sum().item()
        with pytest.raises(DynamicOutputShapeException):
            images[images > 0]


@pytest.mark.parametrize("name", sorted({*losses.names()} - COUNTING))
def test_a_loss_is_computed_where_its_features_are(name: str) -> None:
    compute, student, teacher, batch = term(name)
    compute(student, teacher, batch)  # what some losses find out in their first step
    gpu = FakeGPU()
    moved, _ = gpu.module(with_student(compute))
    own, taught, images = gpu.tensors((student, teacher, batch))
    with gpu.active():
        value: Tensor = moved(own, taught, images._replace(sample=batch.sample))
        assert value.device.type == "cuda"
        assert value.dtype == torch.float32
