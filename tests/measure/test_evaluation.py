"""Networks are evaluated where their inputs lie."""

import torch
from torch import nn

from distill.measure.evaluation import to_accelerator


def test_a_network_follows_its_inputs_to_the_device_of_the_process() -> None:
    predict = to_accelerator(nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.9)))
    assert predict(torch.ones(1, 3)).tolist() == predict(torch.ones(1, 3)).tolist()  # in eval mode
    assert predict(torch.ones(4, 3, device="meta")).device.type == "meta"
