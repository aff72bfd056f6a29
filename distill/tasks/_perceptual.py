"""A frozen network whose maps say what a picture shows and how it is painted."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill.data.info import DataInfo
from distill.errors import RecipeError
from distill.models.build import build_network, network_entry
from distill.models.input_transform import InputTransform
from distill.models.published import IMAGENET, published
from distill.models.weights import load_weights
from distill.recipe.schema.components import NetworkSection
from distill.recipe.schema.perceptual import Layers, Perceptual
from distill.recipe.typed import typed
from distill.registry import did_you_mean

Pictures = Float[Tensor, "batch channels _ _"]

# Of EfficientNet-Lite0 the wide maps after an activation: in trials, those of its narrow layers painted nothing. Of
# VGG-16 relu1_2, 2_2, 3_3 and 4_3: Johnson et al., arXiv:1603.08155, section 4.1.
LAYERS = {
    "efficientnet_lite0": Layers(
        ["blocks.4"], ["stem", "blocks.1.depthwise", "blocks.3.depthwise", "blocks.5.depthwise"]
    ),
    "vgg16": Layers(["features.8"], ["features.3", "features.8", "features.15", "features.22"]),
}
IMAGENET_ARGUMENTS = {"num_classes": 1000, "channels": 3}
TORCHVISION = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
"""Mean and standard deviation of what torchvision's weights were trained on."""


class PerceptualMaps:
    """From normalised pictures to the maps of a perceptual network.

    Args:
        spec: the section of the recipe.
        info: what pictures are normalised with.

    Raises:
        RecipeError: no weights, weights that do not fit, or layers that the network does not have.
    """

    def __init__(self, spec: Perceptual, info: DataInfo) -> None:
        section = typed({"name": spec.name}, NetworkSection, "task.perceptual")
        layers = spec.layers or LAYERS.get(spec.name)
        if layers is None:
            raise RecipeError(
                f"task.perceptual: which layers of '{spec.name}'? Write layers: {{content: [], style: []}}"
            )
        self.layers = layers
        self.paths = tuple(dict.fromkeys([*layers.content, *layers.style]))
        if not self.paths:
            raise RecipeError("task.perceptual.layers names no layers")
        known = published(spec.name)
        mean, std = (known.mean, known.std) if known else TORCHVISION
        self.prepare = InputTransform(info.mean, info.std, spec.mean or mean, spec.std or std)
        self.network = _frozen(spec, section)
        modules = {path: module for path, module in self.network.named_modules() if path}
        for path in self.paths:
            if path not in modules:
                raise RecipeError(f"task.perceptual.layers: '{spec.name}' has no module {did_you_mean(path, modules)}")

    def __call__(self, pictures: Pictures) -> dict[str, Float[Tensor, "batch _ _ _"]]:
        """Maps by path, in float32; nothing behind the last of them is computed.

        Raises:
            RecipeError: the network cannot read such pictures, or a layer returns no maps.
        """
        self.network.to(pictures.device)
        found: dict[str, Tensor] = {}
        with ExitStack() as hooks, torch.autocast(pictures.device.type, enabled=False):
            for path in self.paths:
                hook = _keep(found, path, len(self.paths))
                hooks.enter_context(self.network.get_submodule(path).register_forward_hook(hook))
            try:
                self.network(self.prepare.of(pictures.float()))
            except _EnoughError:
                return found
            except torch.OutOfMemoryError:
                raise
            except (AssertionError, RuntimeError) as error:  # how networks refuse a size
                size = "x".join(map(str, pictures.shape[1:]))
                raise RecipeError(f"task.perceptual: the network cannot read pictures of {size}: {error}") from error
        raise RecipeError(
            f"task.perceptual.layers: {sorted({*self.paths} - {*found})} are modules that are never called"
        )


class _EnoughError(Exception):
    """Every map is there: ends the pass."""


def _keep(found: dict[str, Tensor], path: str, wanted: int) -> Callable[..., None]:
    def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise RecipeError(
                f"task.perceptual.layers: '{path}' ({type(module).__name__}) returns no maps "
                "(batch, channels, height, width): name one that does"
            )
        found[path] = output.clone()  # a layer behind it may write into it
        if len(found) == wanted:
            raise _EnoughError

    return hook


def gram(maps: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels channels"]:
    """Johnson et al., arXiv:1603.08155, equation 3: which channels fire together, wherever."""
    flat = maps.float().flatten(2)
    with torch.autocast(maps.device.type, enabled=False):  # float16 ends at 65,504, sums over pixels do not
        return flat @ flat.mT / flat[0].numel()


def _frozen(spec: Perceptual, section: Any) -> nn.Module:
    """The network with its weights, in evaluation mode; random numbers of the run are left alone."""
    weights = _weights(spec)
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            network = build_network(network_entry(section, IMAGENET_ARGUMENTS), allow=[spec.name.partition(":")[0]])
            load_weights(network, weights, name=spec.name)
        except RecipeError as error:
            raise RecipeError(f"task.perceptual: {error}") from error
        return network.requires_grad_(False).eval()


def _weights(spec: Perceptual) -> str:
    if spec.weights:
        return spec.weights
    if not published(spec.name):
        raise RecipeError(f"task.perceptual: '{spec.name}' needs weights: FILE")
    return IMAGENET
