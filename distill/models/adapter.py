"""Networks that return a dict, a tuple, a list or a dataclass, adapted at their door: outside, every network maps one
tensor to one tensor.

The adapter is a forward hook on the network itself, not a module around it. Names of modules and of the state dict stay
the network's own, and whatever copies, saves, traces or exports the network takes the adapter along.

Auxiliary outputs (Szegedy et al.: Going Deeper with Convolutions. arXiv:1409.4842, section 5) are the other tensors of
such an output: the task's loss trains them too, and they do not ship; see `distill.models.auxiliary`.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from distill.errors import RecipeError

MAIN_FIELDS = ("logits", "out")
"""Names under which networks of timm, transformers and torchvision return their main output."""


class Auxiliary(NamedTuple):
    """An auxiliary output."""

    field: str
    """The key, attribute or position in the network's output."""
    weight: float
    """Of its loss, beside the main output's 1."""
    head: str | None = None
    """The module that computes it, in a network that may be built without it."""


@dataclass(frozen=True)
class OutputAdapter:
    """A forward hook: of all that the network returns, callers get the main output."""

    output: str | None = None
    """Key, attribute or position of the main output; None: one of `MAIN_FIELDS`."""
    auxiliary: Mapping[str, Auxiliary] = field(default_factory=dict)
    """By the name of their loss."""

    def __call__(self, network: nn.Module, arguments: Any, output: Any) -> Tensor:
        if isinstance(output, Tensor):
            return output
        names = MAIN_FIELDS if self.output is None else (self.output,)
        for found in (_field(output, name) for name in names):
            if isinstance(found, Tensor):
                return found
        wanted = f"but no tensor '{self.output}'" if self.output else "so say which one to use"
        raise RecipeError(
            f"network {type(network).__name__} returns a {type(output).__name__} of {', '.join(_outline(output))}, "
            f"{wanted}: write output: NAME (or a position, as 0 or -1) in its entry"
        )

    def auxiliary_outputs(self, output: Any) -> dict[str, Tensor]:
        """All auxiliary outputs, by name; many networks return them in training mode only.

        Raises:
            RecipeError: the network did not return one of them.
        """
        found = {name: _field(output, extra.field) for name, extra in self.auxiliary.items()}
        if missing := [name for name, tensor in found.items() if not isinstance(tensor, Tensor)]:
            content = "one tensor" if isinstance(output, Tensor) else ", ".join(_outline(output))
            raise RecipeError(f"in training, the network returns {content}, but no auxiliary output '{missing[0]}'")
        return found


@dataclass(frozen=True)
class SplitImages:
    """A forward pre-hook: images that are stacked along the channels reach the network as separate arguments."""

    images: int

    def __call__(self, network: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor, ...]:
        (stacked,) = arguments
        if stacked.shape[1] % self.images:
            raise RecipeError(
                f"network {type(network).__name__} reads {self.images} images, "
                f"but a sample has {stacked.shape[1]} channels"
            )
        return stacked.chunk(self.images, dim=1)


TORCHVISION: Mapping[str, OutputAdapter] = {
    # Weights: Szegedy et al., arXiv:1409.4842, section 5, and torchvision's references for the others; of RAFT's flows,
    # Teed & Deng, arXiv:2003.12039, equation 7.
    "GoogLeNet": OutputAdapter("logits", {f"aux{n}": Auxiliary(f"aux_logits{n}", 0.3, head=f"aux{n}") for n in (1, 2)}),
    "Inception3": OutputAdapter("logits", {"aux1": Auxiliary("aux_logits", 0.4, head="AuxLogits")}),
    "_SimpleSegmentationModel": OutputAdapter("out", {"aux1": Auxiliary("aux", 0.5, head="aux_classifier")}),
    "LRASPP": OutputAdapter("out"),
    "RAFT": OutputAdapter("-1", {f"aux{n}": Auxiliary(str(n - 1), 0.8 ** (12 - n)) for n in range(1, 12)}),
}
"""By class: networks of torchvision that return more than one tensor, at least while they train."""


def adapt(model: nn.Module, output: str | None = None, auxiliary: Mapping[str, float] | None = None) -> nn.Module:
    """Give a network its adapter, in place, where it may need one.

    Args:
        model: a network.
        output: what the recipe says is its main output: a key, an attribute or a position.
        auxiliary: what the recipe says are its auxiliary outputs, with the weights of their losses.
    """
    known = next((TORCHVISION[kind] for kind in _torchvision_classes(model) if kind in TORCHVISION), OutputAdapter())
    built = {
        name: extra
        for name, extra in known.auxiliary.items()
        if extra.head is None or getattr(model, extra.head, None) is not None
    }
    chosen = {name: Auxiliary(name, weight) for name, weight in (auxiliary or {}).items()}
    for name in chosen.keys() & built.keys():
        chosen[name] = built[name]._replace(weight=chosen[name].weight)
    model.register_forward_hook(OutputAdapter(output or known.output, {**built, **chosen}))
    if (images := _required_arguments(model)) > 1:
        model.register_forward_pre_hook(SplitImages(images))
    return model


def adapter_of(model: nn.Module) -> OutputAdapter:
    """The network's adapter; one that changes nothing where it has none."""
    hooks = model._forward_hooks.values()
    return next((hook for hook in hooks if isinstance(hook, OutputAdapter)), OutputAdapter())


def _torchvision_classes(model: nn.Module) -> list[str]:
    return [kind.__name__ for kind in type(model).__mro__ if kind.__module__.startswith("torchvision.models.")]


def _required_arguments(model: nn.Module) -> int:
    parameters = inspect.signature(model.forward).parameters.values()
    return sum(p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty for p in parameters)


def _field(output: Any, name: str) -> Any:
    """What a container holds under a key, an attribute or a position; None where there is nothing."""
    if isinstance(output, Mapping):
        return output.get(name)
    if isinstance(output, list | tuple) and name.lstrip("-").isdigit():
        return output[int(name)] if -len(output) <= int(name) < len(output) else None
    return getattr(output, name, None)


def _outline(output: Any) -> list[str]:
    """Names and shapes of what a container holds."""
    if isinstance(output, Mapping):
        parts = dict(output)
    elif isinstance(output, list | tuple) and not hasattr(output, "_fields"):
        parts = {str(position): part for position, part in enumerate(output)}
    else:
        parts = output._asdict() if hasattr(output, "_asdict") else getattr(output, "__dict__", {})
    return [
        f"'{name}' {tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__}"
        for name, part in parts.items()
    ]
