"""What a network costs on paper: parameters and multiply-accumulates (MACs)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from distill.models.channels.narrow import is_weight


def _recurrent_flops(sequence: Tensor, input_weight: Tensor, hidden_weight: Tensor, *_: Any, **__: Any) -> int:
    """Of one layer of an LSTM in one direction, over the whole sequence (time, batch, features)."""
    return 2 * sequence.shape[0] * sequence.shape[1] * (input_weight.numel() + hidden_weight.numel())


FLOPS: dict[Any, Callable[..., int]] = {**flop_registry, torch.ops.aten.mkldnn_rnn_layer: _recurrent_flops}


def params(model: nn.Module) -> int:
    """Number of parameter values, frozen ones and batch normalisation included; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates for one image: convolutions and matrix products, those of attention included.

    Normalisation, activations, pooling and additions are left out, as published counts do: the result is torchvision's
    figure for all of its classification networks. ``model`` runs once, in evaluation mode, and is left as it was.

    Args:
        example: (batch, channels, height, width); its first image is used.
    """
    counter = _Counter()
    with counter:
        _run(model, example)
    return counter.flops // 2


def nonzero(model: nn.Module, name: str, parameter: nn.Parameter) -> int:
    """Values of a parameter that are left after pruning: zeros do not count among weights, see `is_weight`; among
    biases, scales, class tokens and position embeddings they do."""
    return int(parameter.count_nonzero()) if is_weight(model, name, parameter) else parameter.numel()


def effective_macs(model: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates without products with zeros of weights.

    Only a runtime with sparse kernels turns such zeros into time.

    Args:
        example: as of `macs`.
    """
    counter = _Counter(values for name, values in model.named_parameters() if is_weight(model, name, values))
    with counter:
        _run(model, example)
    return counter.flops // 2 - round(counter.zero_flops / 2)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every module gets its own mode back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class _Counter(TorchDispatchMode):
    """Counts products, and those of which one factor is a zero of a weight.

    `torch.utils.flop_counter.FlopCounterMode` also attributes them to modules, and cannot do so where a module reads a
    view of a parameter, such as a class token.
    """

    def __init__(self, weights: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.weights = {weight.untyped_storage()._cdata for weight in weights}
        self.flops, self.zero_flops = 0, 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if (count := FLOPS.get(func.overloadpacket)) is not None:
            flops = count(*args, **kwargs, out_val=result)
            factors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t.dim() > 1]
            weights = [t for t in factors if t.untyped_storage()._cdata in self.weights and not t.is_meta]
            zeros = max((1 - int(t.count_nonzero()) / t.numel() for t in weights), default=0.0)
            self.flops += flops
            self.zero_flops += zeros * flops
        return result


def _run(model: nn.Module, example: Tensor) -> None:
    """One image through the model, in evaluation mode, with every product where it can be counted."""
    device = next((parameter.device for parameter in model.parameters()), example.device)
    with evaluating(model), torch.no_grad(), _plain_attention():
        model(example[:1].to(device))


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention as the matrix products that it is made of: fused kernels are not counted."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
