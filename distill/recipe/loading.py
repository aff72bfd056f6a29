"""A recipe is one whole experiment. Here it is found, inherited, overridden and checked before anything runs."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distill.errors import RecipeError
from distill.recipe.files import find, names
from distill.recipe.schema import Component, Hook, Loss, Network, Recipe, TeacherNetwork
from distill.registry import (
    Registry,
    data,
    did_you_mean,
    exporter,
    hook,
    injected,
    loss,
    needs_teacher,
    required,
    schema,
    task,
)
from students import student

FROM_THE_DATA = ("num_classes", "channels")


def load(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply ``key.path=value`` overrides, check every name, key and type.

    Args:
        name: a recipe of the repository (``fashion_mnist/resnet20_shufflenet``), or the path of a YAML file.
        overrides: ``stages.distill.epochs=5`` sets one value; ``student={name: lenet5}`` replaces a section.

    Raises:
        RecipeError: names the recipe, the place in it, what is wrong and what would be right.
    """
    path, place = find(name), ""
    try:
        tree = _sections(path)
        for override in overrides:
            _apply(override, tree)
        tree.setdefault("recipe", path.stem if name.endswith((".yaml", ".yml")) else name)
        for parent, key, registry, base in _components(tree):
            place = f" at {parent._get_full_key(key)}"
            parent[key] = _typed(parent[key], key, registry, base)
        place = ""
        _check_trainer(tree.get("trainer") or {})
        recipe = cast(Recipe, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Recipe), tree)))
        _check_losses(recipe)
        _check_cache(recipe)
        _check_rounds(recipe)
        return recipe
    except (OmegaConfBaseException, RecipeError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe '{name}'{_explain(error, place)}") from None


def _apply(override: str, tree: DictConfig) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"'{override}' is not of the form key.path=value")
    OmegaConf.update(tree, key, OmegaConf.create(f"value: {value}").value, merge=False, force_add=True)


def _components(tree: DictConfig) -> Iterator[tuple[DictConfig, str, Registry, type]]:
    """Every node that names a component: its parent and key, where to look it up, and what all of its kind share."""
    for key, registry, base in (
        ("task", task, Component),
        ("data", data, Component),
        ("student", student, Network),
        ("teacher", student, TeacherNetwork),
    ):
        if tree.get(key) is not None:
            yield tree, key, registry, base
    for key in _mapping(tree, "teachers"):
        yield tree.teachers, key, student, TeacherNetwork
    stages = list(_mapping(tree, "stages").values())
    hooks = _mapping(tree, "compress")
    stages += [node.finetune for node in hooks.values() if isinstance(node, DictConfig) and node.get("finetune")]
    for stage in stages:
        for key in _mapping(stage, "losses"):
            yield stage.losses, key, loss, Loss
        for key in ("student", "peer"):
            if stage.get(key) is not None:
                yield stage, key, student, Network
    for key in hooks:  # after what is inside them
        yield tree.compress, key, hook, Hook
    for key in _mapping(tree, "export"):
        yield tree.export, key, exporter, Component


def _mapping(parent: Any, key: str) -> Mapping[str, Any]:
    """The mapping under ``key``, empty if there is none."""
    if not isinstance(parent, DictConfig):
        raise RecipeError(f"'{parent}' stands where a mapping is expected")
    value = parent.get(key)
    if value is not None and not isinstance(value, DictConfig):
        raise RecipeError(f"'{key}' is {value!r}, but it is a mapping from names to settings")
    # A key is an address in overrides, a folder, a metric's name: dots and slashes would cut it in two.
    for name in map(str, value or {}):
        if set("./:") & set(name):
            short = re.split(r"[./:]", name)[-1]
            raise RecipeError(f"'{name}' cannot be a key of '{key}'; write {short}: {{name: '{name}', ...}}")
    return value or {}


def _typed(node: Any, key: str, registry: Registry, base: type) -> DictConfig:
    node = OmegaConf.create({}) if node is None else OmegaConf.create({"name": node}) if isinstance(node, str) else node
    if not isinstance(node, DictConfig):
        raise RecipeError(f"{node!r} stands where the settings of a {registry.kind} are expected")
    node.setdefault("name", key)
    component = registry.find(node.name)
    # Networks from elsewhere do not follow our rule of signatures: their settings go under `arguments`.
    typed = base if registry is student and node.name not in registry.names() else None
    typed = typed or schema(component, base, inferred=FROM_THE_DATA)
    return cast(DictConfig, OmegaConf.merge(OmegaConf.structured(typed), node))


def _sections(path: Path) -> DictConfig:
    """``base: other`` takes every top-level section that this recipe does not write from ``other``.

    Sections are replaced whole and a base has no base, so each section stands complete in one of two files.
    """
    sections = _read(path)
    if base := sections.pop("base", None):
        beside = path.parent / f"{base}.yaml"
        inherited = _read(beside if beside.is_file() else find(str(base)))
        if "base" in inherited:
            raise RecipeError(f"base '{base}' has a base of its own; keep recipes at most two files deep")
        sections = inherited | sections
    return OmegaConf.create(sections)


def _read(path: Path) -> dict[str, Any]:
    sections = OmegaConf.load(path)
    if not isinstance(sections, DictConfig):
        raise RecipeError(f"{path} holds no sections; start from one of: {', '.join(names())}")
    return dict(sections)


def _check_trainer(settings: Mapping[str, Any]) -> None:
    valid = [p for p in inspect.signature(pl.Trainer).parameters if p not in ("max_epochs", "logger", "callbacks")]
    if unknown := [key for key in settings if key not in valid]:
        raise RecipeError(f"at trainer: unknown setting of Lightning's Trainer {did_you_mean(str(unknown[0]), valid)}")


def _check_losses(recipe: Recipe) -> None:
    """Whoever compares has someone to compare with."""
    for name, stage in recipe.stages.items():
        asking = [key for key, spec in stage.losses.items() if needs_teacher(spec.name)]
        if asking and not stage.peer and not recipe.teachers_of(stage):
            raise RecipeError(f"at stages.{name}: loss '{asking[0]}' compares with a teacher, but the recipe has none")
        fixed = [key for key, spec in stage.losses.items() if "teacher_model" in required(loss.find(spec.name))]
        if fixed and stage.peer:
            raise RecipeError(f"at stages.{name}: loss '{fixed[0]}' reads a trained teacher's weights; a peer has none")
        if stage.blocks and not recipe.teachers_of(stage):
            raise RecipeError(f"at stages.{name}: blocks learn from a teacher, but the recipe has none")


def _check_cache(recipe: Recipe) -> None:
    """A cache needs a teacher whose answer to an image is always the same."""
    if not recipe.cache:
        return
    if not any(map(recipe.teachers_of, recipe.stages.values())):
        raise RecipeError("cache: there is no teacher whose answers it could keep; remove it")
    stages = {f"stages.{name}": stage for name, stage in recipe.stages.items()}
    recoveries = {f"compress.{name}.finetune": hook.finetune for name, hook in recipe.compress.items() if hook.finetune}
    for place, stage in {**stages, **recoveries}.items():
        if stage.teacher_bn == "train":
            raise RecipeError(
                f"at {place}: with 'teacher_bn: train' the teacher's answer to an image depends on the batch around it "
                "and cannot be cached; remove 'cache', or choose 'teacher_bn: eval'"
            )


def _check_rounds(recipe: Recipe) -> None:
    """Whoever is applied several times knows how far to go each time."""
    for name, spec in recipe.compress.items():
        if spec.rounds > 1 and "progress" not in injected(hook.find(spec.name)):
            raise RecipeError(f"at compress.{name}: '{spec.name}' goes all the way at once; remove 'rounds'")


def _explain(error: Exception, place: str) -> str:
    """Where in the recipe, and what; without OmegaConf's dump of its internals."""
    if not isinstance(error, OmegaConfBaseException):
        return f"{place}: {' '.join(str(error).split())}"
    section = (error.full_key or "").rpartition(".")[0]
    place = place or (f" at {section}" if section else "")
    return f"{place}: {str(error).partition(chr(10))[0]}"
