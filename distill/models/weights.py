"""A network's first weights: from a checkpoint file, or torchvision's by name."""

import logging
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from distill.errors import RecipeError

log = logging.getLogger(__name__)


def load_weights(model: nn.Module, weights: str, *, name: str, new_classifier: bool = False) -> None:
    """Fill a network from a checkpoint file, or from torchvision's weights of that name.

    Args:
        model: the network to fill.
        weights: a ``.safetensors`` file, a ``.pt``/``.pth`` file of plain tensors, or for example ``IMAGENET1K_V1``.
        name: the network's name in the recipe.
        new_classifier: a last layer of another size keeps its fresh weights instead of being an error.
    """
    state = _torchvision_state(name, weights) if not Path(weights).suffix else _file_state(Path(weights))
    own = model.state_dict()
    sizes = {k: (tuple(v.shape), tuple(own[k].shape)) for k, v in state.items() if k in own and v.shape != own[k].shape}
    if sizes and new_classifier and {k.rpartition(".")[0] for k in sizes} == {_last_layer(model)}:
        log.info("%s: the classifier starts anew (%s)", name, ", ".join(f"{a} -> {b}" for a, b in sizes.values()))
        state = {k: own[k] if k in sizes else v for k, v in state.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise RecipeError(f"weights '{weights}' do not fit network '{name}': {' '.join(lines)}") from None


def _file_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise RecipeError(f"no checkpoint file '{path}'")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise RecipeError(f"cannot read checkpoint '{path}': {str(error).splitlines()[0]}") from None
    except Exception as error:  # pickle.UnpicklingError: its message runs over a page
        raise RecipeError(f"checkpoint '{path}' holds more than tensors ({type(error).__name__})") from None
    for key in ("state_dict", "model"):
        state = state.get(key, state)
    return state


def _torchvision_state(name: str, weights: str) -> dict[str, Tensor]:
    try:
        choices = torchvision.models.get_model_weights(name)
    except ValueError:
        raise RecipeError(f"'{weights}' is no file, and torchvision has no weights for network '{name}'") from None
    if weights != "DEFAULT" and weights not in choices.__members__:
        raise RecipeError(f"torchvision's '{name}' has no weights '{weights}', but: {', '.join(choices.__members__)}")
    try:
        return choices[weights].get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise RecipeError(f"cannot download '{weights}' of '{name}' ({error}); put weights=FILE instead") from None


def _last_layer(model: nn.Module) -> str:
    return [path for path, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
