"""Which layers a hook may change, and what hooks that factorise weights share."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import Tensor, nn

from distill.artifact import Artifact
from distill.artifact.sparse import keeps_zeros
from distill.errors import RecipeError, TrainingError
from distill.models.auxiliary import runs_in_training
from distill.models.channels.narrow import derived, weights
from distill.models.read_elsewhere import WHY, read_elsewhere
from distill.registry import did_you_mean

Layer = nn.Conv2d | nn.Linear


def chosen(paths: Iterable[str], patterns: list[str] | None) -> list[str]:
    """Those of the module paths that match one of the globs; all of them without any.

    Raises:
        RecipeError: a glob matches nothing.
    """
    paths = list(paths)
    if patterns is None:
        return paths
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise RecipeError(f"no layer to compress matches {did_you_mean(pattern, paths)}")
    return [path for path in paths if any(fnmatchcase(path, pattern) for pattern in patterns)]


def factorable(
    artifact: Artifact,
    hook: str,
    patterns: list[str] | None,
    image: Tensor | None = None,
    *,
    grouped: bool = False,
    pruned: bool = False,
) -> tuple[dict[str, Layer], dict[str, str]]:
    """Plain convolutions and linear layers that nothing else shares weights with, by path; and why others are not.

    Convolutions in groups are among them if ``grouped``, and layers that keep zeros if ``pruned``. Of those that the
    network does not only call, which an ``image`` shows, nothing else can take the place.

    Raises:
        RecipeError: the artifact is encoded, a glob matches nothing, or a layer is pruned but must not be.
        TrainingError: a weight holds values that are not finite.
    """
    refuse_encoded(artifact, hook)
    users: Counter[Tensor] = Counter(p for module in artifact.model.modules() for p in module.parameters(recurse=False))
    layers = {path: m for path, m in artifact.model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    fit, unfit = {}, {}
    for path in chosen(layers, patterns):
        layer = layers[path]
        refuse_broken(hook, f"{path}.weight", layer.weight)
        if not pruned and keeps_zeros(artifact.stored.get(f"{path}.weight")):
            raise RecipeError(
                f"'{hook}' would fill the zeros of '{path}': put it before 'prune', or choose other layers"
            )
        if type(layer) not in (nn.Conv2d, nn.Linear):
            unfit[path] = f"a {type(layer).__name__}"
        elif derived(layer):
            unfit[path] = "weight computed from others"
        elif users[layer.weight] > 1:
            unfit[path] = "shared weight"
        elif isinstance(layer, nn.Conv2d) and layer.groups > 1 and not grouped:
            unfit[path] = "in groups"
        else:
            fit[path] = layer
    kept = {} if image is None else left(hook, read_elsewhere(artifact.model, image, fit))
    return {path: layer for path, layer in fit.items() if path not in kept}, unfit | kept


def left(hook: str, paths: Sequence[str]) -> dict[str, str]:
    """Warn in one line of layers that a hook has to leave as they are because of `read_elsewhere`; why, by path."""
    if paths:
        others = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        named = ", ".join(paths[:3]) + others
        logging.getLogger(f"distill.compress.{hook}").warning("%s: left as they are, %s: %s", hook, WHY, named)
    return dict.fromkeys(paths, WHY)


def refuse_encoded(artifact: Artifact, hook: str) -> None:
    """Hooks come before `encode`, and all but that one before `int8`."""
    if artifact.encoded:
        raise RecipeError(f"'{hook}' after 'encode' would undo it: put 'encode' last in compress")
    if hook != "encode" and any(plan.hook == "int8" for plan in artifact.plans):
        raise RecipeError(f"'{hook}' after 'int8' would take its weights off their codes: put 'int8' after '{hook}'")


def refuse_broken(hook: str, name: str, weight: Tensor) -> None:
    """A weight that is not a number would spoil whatever a hook makes of it."""
    if broken := int((~weight.isfinite()).sum()):
        raise TrainingError(f"{hook}: {broken} of {weight.numel()} values of '{name}' are not finite: train it again")


def refuse_broken_weights(hook: str, model: nn.Module) -> None:
    """The same of all convolutions and linear layers."""
    for name, weight in weights(model):
        refuse_broken(hook, name, weight)


def refuse_stored(hook: str, artifact: Artifact, paths: Collection[str]) -> None:
    """What is known of a weight, its zeros or its codes, would be lost with the weight's shape."""
    for name in artifact.stored:
        if name.rpartition(".")[0] in paths:
            raise RecipeError(f"'{hook}' would undo how '{name}' is stored: put it before such hooks in compress")


def refuse_unfit_heads(hook: str, before: nn.Module, after: nn.Module, images: Tensor) -> None:
    """Auxiliary heads read maps whose channels a hook removes, but only in training: no trace shows what they need."""
    if runs_in_training(before, images) and not runs_in_training(after, images):
        raise RecipeError(
            f"'{hook}' removes channels that modules read in training alone, such as auxiliary heads: take those out "
            "of the network first"
        )


def layer_at(model: nn.Module, path: str) -> Layer:
    """The convolution or linear layer of that path."""
    layer = model.get_submodule(path)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    return layer


def rank_within(spectrum: Tensor, tolerance: float) -> int:
    """The smallest rank, at least 1, that leaves out at most ``tolerance`` of the squared singular values' sum.

    Values are float32: what is below their precision is left out anyway.
    """
    energy = spectrum.double().square()
    left_out = energy.flip(0).cumsum(0).flip(0)
    return max(1, int((left_out > max(tolerance, 1e-13) * energy.sum()).sum()))


class Change(NamedTuple):
    """What happened to a layer."""

    ranks: tuple[int, ...]
    before: int
    """Parameters, without bias."""
    after: int
    error: float
    """Of its weight, relative."""


def explain(hook: str, changed: Mapping[str, Change], unchanged: Mapping[str, str]) -> None:
    """Log one line for the result and for the layers that stay as they are; each layer by name with ``--debug``."""
    log = logging.getLogger(f"distill.compress.{hook}")
    for path, change in changed.items():
        log.debug("%s: %s: ranks %s, %d -> %d parameters, relative error %.3f", hook, path, *change)
    before, after = sum(c.before for c in changed.values()), sum(c.after for c in changed.values())
    reasons = {why: [path for path in unchanged if unchanged[path] == why] for why in unchanged.values()}
    for why, paths in reasons.items():
        log.debug("%s: left as they are, %s: %s", hook, why, ", ".join(paths))
    left = "; left as they are: " + ", ".join(f"{len(paths)} ({why})" for why, paths in reasons.items())
    log.info("%s: %d layers, %d -> %d parameters%s", hook, len(changed), before, after, left if reasons else "")
