"""Layers in groups without weights between them: built, filled from whole layers, and masked within these."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill.models.copied import copied
from distill.models.surgery import exchange
from distill.registry import surgery

Split = nn.Conv2d | nn.Linear


class SplitLinear(nn.Module):
    """Linear layers side by side, each for its own features and classes.

    Args:
        inputs: features of each.
        outputs: classes of each.
        bias: whether they have one.
    """

    order: Tensor

    def __init__(self, inputs: list[int], outputs: list[int], *, bias: bool) -> None:
        super().__init__()
        self.sizes = inputs
        self.parts = nn.ModuleList(nn.Linear(i, o, bias) for i, o in zip(inputs, outputs, strict=True))
        self.register_buffer("order", torch.arange(sum(outputs)))  # where each class lies among the parts' outputs

    def forward(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch classes"]:
        parts = zip(self.parts, features.split(self.sizes, dim=1), strict=True)
        return torch.cat([part(own) for part, own in parts], dim=1)[:, self.order]


@surgery("splitnet")
def apply(model: nn.Module, layers: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Split layers into groups of so many inputs and outputs."""
    for path, spec in layers.items():
        old = model.get_submodule(path)
        new: nn.Module
        if isinstance(old, nn.Conv2d):
            names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "padding_mode")
            settings = {name: getattr(old, name) for name in names}
            new = nn.Conv2d(**settings, groups=len(spec["inputs"]), bias=old.bias is not None)
        else:
            assert isinstance(old, nn.Linear)
            new = SplitLinear(spec["inputs"], spec["outputs"], bias=old.bias is not None)
        parameter = next(old.parameters())
        exchange(model, path, new.to(parameter.device, parameter.dtype).train(old.training))
    return model


@torch.no_grad()
def masked(model: nn.Module, members: Mapping[str, tuple[list[int], list[int]]]) -> nn.Module:
    """A copy of the network in which no weight leads from one group to another."""
    model = copied(model)
    for path, both in members.items():
        weight = model.get_submodule(path).weight
        assert isinstance(weight, Tensor)
        reads, makes = (torch.tensor(groups, device=weight.device) for groups in both)
        weight.mul_((makes[:, None] == reads[None]).view(*weight.shape[:2], *[1] * (weight.dim() - 2)))
    return model


@torch.no_grad()
def copy_within_groups(new: nn.Module, old: nn.Module, makes: Tensor) -> None:
    """Give a split layer what the whole one has within groups: inputs in order, outputs as ``makes`` says."""
    assert isinstance(old, Split)
    groups = int(makes.max()) + 1
    rows = [(makes == group).nonzero().flatten().to(old.weight.device) for group in range(groups)]
    if isinstance(new, nn.Conv2d):
        columns = old.weight.chunk(groups, dim=1)
        new.weight.copy_(torch.cat([block[own] for block, own in zip(columns, rows, strict=True)]))
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
        return
    assert isinstance(new, SplitLinear)
    new.order.copy_(torch.cat(rows).argsort())
    for part, own, block in zip(new.parts, rows, old.weight.split(new.sizes, dim=1), strict=True):
        assert isinstance(part, nn.Linear)
        part.weight.copy_(block[own])
        if old.bias is not None:
            part.bias.copy_(old.bias[own])
