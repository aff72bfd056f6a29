"""The layer of a network that turns the features of its last map into logits."""

from typing import cast

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def last_linear(model: nn.Module, loss: str) -> tuple[str, nn.Linear]:
    """Path and layer of a network's classifier: its last ``nn.Linear``.

    Args:
        model: a classifier network.
        loss: the name of the loss that needs it, for messages.

    Raises:
        ValueError: there is none.
    """
    layers = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ValueError(
            f"{loss} reads the classifier, a network's last nn.Linear, but {type(model).__name__} has none"
        )
    return layers[-1]


def check_it_reads(model: nn.Module, shape: tuple[int, ...], loss: str) -> None:
    """Check that a network's classifier reads the features of a tap.

    Args:
        model: a classifier network.
        shape: of the tap, beginning with the batch.
        loss: the name of the loss that needs it, for messages.

    Raises:
        ValueError: it reads another number of channels, or there is no ``nn.Linear``.
    """
    path, layer = last_linear(model, loss)
    if layer.in_features != shape[1]:
        raise ValueError(
            f"{loss} takes the tap for what the classifier reads, but '{path}' of {type(model).__name__} reads "
            f"{layer.in_features} features and the tap has {shape[1]} channels; tap the last map"
        )


class FrozenClassifier(nn.Module):
    """A teacher's classifier, which is in no optimizer and no checkpoint.

    Args:
        teacher_model: the network.
        teacher_shape: of the tap whose features the classifier reads.
        loss: the name of the loss that needs it, for messages.

    Raises:
        ValueError: the network has no ``nn.Linear``, or its last one reads another number of channels.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, teacher_model: nn.Module, teacher_shape: tuple[int, ...], loss: str) -> None:
        super().__init__()
        check_it_reads(teacher_model, teacher_shape, loss)
        _, layer = last_linear(teacher_model, loss)
        # Copies: the teacher itself may stay on another device, or behind a cache.
        self.register_buffer("weight", layer.weight.detach().clone(), persistent=False)
        bias = cast(Tensor | None, layer.bias)
        self.register_buffer("bias", None if bias is None else bias.detach().clone(), persistent=False)

    def forward(self, features: Float[Tensor, "batch channels"]) -> Float[Tensor, "batch classes"]:
        """The teacher's logits of these features."""
        return F.linear(features, self.weight, self.bias)
