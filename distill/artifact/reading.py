"""Reads what `Artifact.save` wrote, and believes none of it.

Sizes are checked before memory is asked for: the network is first built on the meta device, where tensors have shapes
but no values, and what it needs is compared with what a file of that length may stand for. Then each tensor's shape is
compared with the network's before it is decompressed. All that does not fit is an `ArtifactError` that names the file.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from math import inf, prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from distill.artifact.artifact import Artifact, Plan, state_of
from distill.artifact.raw import to_tensor
from distill.artifact.step import Step
from distill.artifact.storage import Record, Stored, from_record, validate
from distill.codecs import at_most
from distill.container import file_format
from distill.container.file import File
from distill.errors import ArtifactError
from distill.models.build import build_network, without_published_weights
from distill.registry import surgery

PARAMETERS = 20_000
"""Parameters and modules that a network may have: a depth of a billion is refused before the memory is gone."""
IMPOSSIBLE = "has impossible content"


def open_artifact(path: Path | str, allow: Collection[str] = ()) -> Artifact:
    """Read an artifact's file; the network computes exactly what the saved one did.

    Args:
        path: the file.
        allow: modules outside ``students`` and ``distill`` that may be imported to build the network.

    Raises:
        ArtifactError: the file is missing, truncated, altered or newer, needs code that is not allowed, has impossible
            content, stands for more memory than a file of its length may, or its network is no longer built as it was.
    """
    return read_artifact(file_format.content(Path(path)), str(path), allow)


def read_artifact(data: bytes, name: str, allow: Collection[str] = ()) -> Artifact:
    """As `open_artifact`, of a file's content.

    Args:
        data: the content.
        name: of the file, for messages.
        allow: as there.
    """
    file = _read(data, name, allow)
    head = file.head
    with _blamed_on(name, "does not fit the network it names, as that is built now"):
        expected = _shapes(head, allow)
        if expected is not None:
            _check_size(sum(kind.itemsize * prod(shape) for shape, kind in expected.values()), len(data))
            _check_names(file.names, expected)
            for tensor, (shape, kind) in expected.items():
                file.check(tensor, shape, kind.itemsize)
        # What could not be measured without memory is measured while it is built.
        with nullcontext() if expected is not None else _bounded(file_format.memory_limit(len(data))):
            model = _build(head, allow)
        stored = _fill(model, file)
        history = tuple(Step.from_json(row) for row in head["history"])
        plans = tuple(Plan(**plan) for plan in head["plans"])
    return Artifact(model.eval(), stored, history, head["network"], plans, head["about"], file.block is not None)


def load(path: Path | str, allow: Collection[str] = ()) -> nn.Module:
    """The network of an artifact, ready to run. See `open_artifact`."""
    return open_artifact(path, allow).model


def read_tensor(path: Path | str, name: str, allow: Collection[str] = ()) -> Tensor:
    """One parameter or buffer of an artifact, by its name in the network; no other is decoded, and no network built.

    Raises:
        ArtifactError: as `open_artifact`, or there is no such tensor.
    """
    data = file_format.content(Path(path))
    file = _read(data, str(path), allow)
    with _blamed_on(path, IMPOSSIBLE):
        if name not in file.names:
            raise ArtifactError(f"there is no tensor '{name}'; there are: {', '.join(file.names)}")
        limit = file_format.memory_limit(len(data))
        settings, parts = _record(file, name, limit)
        with at_most(limit):
            return parts[""] if settings is None else from_record(settings, parts).decode()


def _read(data: bytes, name: str, allow: Collection[str]) -> File:
    """The file, checked as far as this needs no network."""
    tensors, head = file_format.decode(data, name)
    with _blamed_on(name, IMPOSSIBLE):
        _check_head(head)
        file = File(tensors, head)
        for names in ([plan["hook"] for plan in head["plans"]], _texts(file.settings())):
            _refuse_outside(names, allow)
        return file


@contextmanager
def _blamed_on(path: Path | str, fault: str) -> Iterator[None]:
    """Whatever goes wrong with a file's content is an error of the file: builders and storage formats run on data that
    anybody may have written, and raise what they like."""
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error
    except Exception as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise ArtifactError(f"{path} {fault}: {why}") from error


def _check_head(head: Mapping[str, Any]) -> None:
    """Types of the plain data, as deep as this module reads it."""
    plans: Any = head.get("plans")
    history: Any = head.get("history")
    fine = (
        _is_dict(head.get("network"))
        and isinstance(head["network"].get("name"), str)
        and _is_dict(head.get("about"))
        and _are_dicts(plans)
        and all(plan.keys() == {"hook", "layers"} and isinstance(plan["hook"], str) for plan in plans)
        and all(_is_dict(plan["layers"]) and _are_dicts(list(plan["layers"].values())) for plan in plans)
        and _are_dicts(history)
        and _are_dicts(head.get("forms", []))
        and all(_is_dict(f.get("settings")) and isinstance(f.get("of"), list) for f in head.get("forms", []))
        and all(isinstance(name, str) for f in head.get("forms", []) for name in f["of"])
    )
    if not fine:
        raise ValueError("its header has other fields")


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _are_dicts(values: Any) -> bool:
    return isinstance(values, list) and all(map(_is_dict, values))


def _build(head: Mapping[str, Any], allow: Collection[str]) -> nn.Module:
    model = build_network(without_published_weights(head["network"]), allow)
    for plan in head["plans"]:
        model = surgery.find(plan["hook"])(model, plan["layers"])
    return model


def _shapes(head: Mapping[str, Any], allow: Collection[str]) -> dict[str, tuple[tuple[int, ...], torch.dtype]] | None:
    """Shapes and types of the network's tensors, found without memory; None where a builder reads values."""
    try:
        with torch.device("meta"), _bounded():
            state = state_of(_build(head, allow))
    except (NotImplementedError, RuntimeError) as error:
        if "meta" in str(error):
            return None
        raise
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}


@contextmanager
def _bounded(limit: float = inf) -> Iterator[None]:
    """Refuse a network of too many parameters and modules, or of more bytes than ``limit``, while it is built: what a
    layer has just asked for takes no memory before it is filled."""
    count = size = 0

    def more(module: nn.Module, name: str, added: nn.Module | nn.Parameter | None) -> None:
        nonlocal count, size
        count += 1
        size += added.nbytes if isinstance(added, nn.Parameter) else 0
        if count > PARAMETERS:
            raise ValueError(f"a network of more than {PARAMETERS} parameters and modules")
        if size > limit:
            raise ValueError(f"a network of more than {limit / 2**20:,.0f} MiB, for which the file is too small")

    register: tuple[Callable[..., Any], ...] = (
        torch_module.register_module_parameter_registration_hook,
        torch_module.register_module_module_registration_hook,
    )
    handles = [some(more) for some in register]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_size(needed: int, size: int) -> None:
    if needed > (limit := file_format.memory_limit(size)):
        raise ArtifactError(
            f"its network takes {needed / 2**20:,.0f} MiB, "
            f"but a file of {size:,} bytes may stand for {limit / 2**20:,.0f} MiB"
        )


def _check_names(found: Iterable[str], expected: Collection[str]) -> None:
    found = set(found)
    if differ := sorted(found ^ set(expected)):
        where = "missing in the network" if differ[0] in found else "missing in the file"
        raise ValueError(f"tensor '{differ[0]}' is {where}")


@torch.no_grad()
def _fill(model: nn.Module, file: File) -> dict[str, Stored]:
    """Give the model's tensors their values; returns the compact forms."""
    state = state_of(model)
    _check_names(file.names, state)
    stored: dict[str, Stored] = {}
    for name, tensor in state.items():
        file.check(name, tuple(tensor.shape), tensor.itemsize)
        settings, parts = _record(file, name, 4 * tensor.nbytes + 2**16)
        if settings is None:
            tensor.copy_(parts[""])
            continue
        stored[name] = from_record(settings, parts)
        validate(stored[name], tuple(tensor.shape))
        tensor.copy_(_of_shape(stored[name].decode(), name, tensor))
    return stored


def _record(file: File, name: str, limit: int) -> Record:
    settings, parts = file.record(name, limit)
    return settings, {part: to_tensor(raw) for part, raw in parts.items()}


def _of_shape(values: Tensor, name: str, tensor: Tensor) -> Tensor:
    if values.shape != tensor.shape:
        raise ValueError(
            f"tensor '{name}' is {tuple(values.shape)} in the file and {tuple(tensor.shape)} in the network"
        )
    return values


def _texts(value: Any) -> Iterator[str]:
    """Every string in plain data."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _refuse_outside(names: Iterable[str], allow: Collection[str]) -> None:
    for name in names:
        module, colon, _ = name.partition(":")
        if colon and module not in allow:
            raise ArtifactError(
                f"the artifact needs '{name}', code from outside; "
                f"if you trust it, pass allow=['{module}'] or --allow {module}"
            )
