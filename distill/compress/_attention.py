"""Multi-head attention in plain linear layers (Vaswani et al.: Attention Is All You Need. arXiv:1706.03762, section
3.2), so that what works on layers reaches its projections: `torch.nn.MultiheadAttention` packs three of them into one
parameter and runs none as a module.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainAttention(nn.Module):
    """What a `torch.nn.MultiheadAttention` computes without masks, in four linear layers.

    Args:
        attention: takes its values, its layout and its mode.
    """

    in_proj_bias = None
    """`torch.nn.TransformerEncoderLayer` looks here whether it may do without calling this module."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads, self.dropout, self.batch_first = attention.num_heads, attention.dropout, attention.batch_first
        biases = [None] * 3 if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)
        weights = (
            (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
            if attention.in_proj_weight is None
            else attention.in_proj_weight.chunk(3)
        )
        self.q_proj, self.k_proj, self.v_proj = map(_linear, weights, biases)
        self.out_proj = _linear(attention.out_proj.weight, attention.out_proj.bias)
        self.train(attention.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: None = None,
        need_weights: bool = True,
        attn_mask: None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Outputs in the layout of ``query``, and attention weights if needed, as `torch.nn.MultiheadAttention`."""
        q, k, v = self._heads(self.q_proj(query)), self._heads(self.k_proj(key)), self._heads(self.v_proj(value))
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            weights = F.dropout((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1), dropout)
            outputs = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            outputs = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        outputs = outputs.transpose(1, 2).flatten(2)
        return self.out_proj(outputs if self.batch_first else outputs.transpose(0, 1)), weights

    def _heads(self, projected: Tensor) -> Tensor:
        """(batch, heads, tokens, features of a head)."""
        batch_first = projected if self.batch_first else projected.transpose(0, 1)
        return batch_first.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


def replaceable(model: nn.Module, image: Tensor) -> tuple[list[str], dict[str, str]]:
    """Paths of attention modules that `PlainAttention` can take the place of; and why it cannot take others'.

    Args:
        model: runs once, in eval mode.
        image: (batch, channels, height, width).
    """
    found = {path: m for path, m in model.named_modules() if type(m) is nn.MultiheadAttention}
    masked: dict[str, bool] = {}

    def look(path: str) -> Any:
        def see(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            given = dict(zip(("query", "key", "value", "key_padding_mask", "_", "attn_mask"), arguments, strict=False))
            given |= named
            masks = any(given.get(name) is not None for name in ("key_padding_mask", "attn_mask"))
            masked[path] = masked.get(path, False) or masks or given["query"].dim() != 3

        return see

    handles = [module.register_forward_pre_hook(look(path), with_kwargs=True) for path, module in found.items()]
    try:
        with _modules_are_called(), torch.no_grad():
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    why = {
        path: "attention that is not used" if path not in masked else "attention with masks or extra keys"
        for path, module in found.items()
        if masked.get(path, True) or module.bias_k is not None or module.add_zero_attn
    }
    return [path for path in found if path not in why], why


@contextmanager
def _modules_are_called() -> Iterator[None]:
    """Without PyTorch's fast path, which reads the parameters of attention modules and calls none of them."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer.to(weight.device)
