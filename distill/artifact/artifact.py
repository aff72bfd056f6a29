"""A compressed student: a runnable network, how each of its tensors is stored, and what was done to it.

On disk it is one safetensors file without code: loading builds the network from its recipe entry, repeats the
structural changes in order, and fills in the tensors.
"""

import copy
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill import atomic
from distill.artifact import byte_planes, file_format
from distill.artifact.sparse import Sparse, inherit_zeros, keeps_zeros
from distill.artifact.step import Step
from distill.artifact.storage import Stored, from_record, to_record
from distill.errors import ArtifactError
from distill.models.build import build_network
from distill.registry import surgery

PACKED = "packed"


@dataclass(frozen=True)
class Plan:
    """One structural change, as plain data."""

    hook: str
    """A name of `surgery`."""
    layers: dict[str, dict[str, Any]]
    """Module path -> what to build there."""


@dataclass(frozen=True)
class Artifact:
    """Hooks take one and return another; none is ever changed."""

    model: nn.Module
    """Always runnable, in eval mode, and computing with exactly what ``stored`` decodes to."""
    stored: Mapping[str, Stored] = field(default_factory=dict)
    """Parameter name -> compact form; a parameter not named here is stored as it is."""
    history: tuple[Step, ...] = ()
    """Rows of the report up to here."""
    network: Mapping[str, Any] = field(default_factory=dict)
    """The recipe entry that rebuilds the untouched network: ``{"name": "shufflenet_v2", "width": 0.5, ...}``."""
    plans: tuple[Plan, ...] = ()
    """Structural changes since then, in order."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Plain JSON: task, data, input, classes."""
    encoded: bool = False
    """Whether `encode` has had the last word."""

    def copy_model(self) -> nn.Module:
        """A model of one's own, in eval mode and in the memory layout that a loaded one has."""
        return copy.deepcopy(self.model).to(memory_format=torch.contiguous_format).eval()

    def with_model(self, model: nn.Module, plan: Plan | None = None) -> "Artifact":
        """The same artifact after surgery; forms that no longer decode to a parameter of the model are dropped.

        What was pruned and has other values now, or other channels, keeps its zeros as a mask.
        """
        parameters = {name: parameter.detach().cpu() for name, parameter in model.named_parameters()}
        kept: dict[str, Stored] = {}
        for name, stored in self.stored.items():
            values = parameters.get(name)
            if values is None:
                continue
            if torch.equal(stored.decode().to(values.dtype), values):
                kept[name] = stored
            elif keeps_zeros(stored):
                kept[name] = Sparse.of(values, values != 0)
        return replace(self, model=model.eval(), stored=kept, plans=(*self.plans, plan) if plan else self.plans)

    def nbytes(self) -> int:
        """Exactly what `save` writes."""
        return len(self.to_bytes())

    def to_bytes(self) -> bytes:
        """The file's content. Once encoded, all tensors are one block; before, each can be read by its name."""
        tensors: dict[str, Tensor] = {}
        forms: dict[str, list[int]] = {}
        for position, (name, tensor) in enumerate(_state(self.model).items()):
            if name in self.stored:
                settings, parts = to_record(self.stored[name])
                forms.setdefault(json.dumps(settings), []).append(position)
                tensors |= {f"{name}/{part}": value for part, value in parts.items()}
            else:
                tensors[name] = tensor
        head = {
            "network": dict(self.network),
            "plans": [asdict(plan) for plan in self.plans],
            "about": dict(self.about),
            "history": [step.to_json() for step in self.history],
            "forms": [{"settings": json.loads(settings), "of": of} for settings, of in forms.items()],
            PACKED: self.encoded,
        }
        return file_format.encode({PACKED: byte_planes.pack(tensors)} if self.encoded else tensors, head)

    def save(self, path: Path | str) -> int:
        """Write the file, whole or not at all, and return its size in bytes.

        Raises:
            ArtifactError: the artifact does not know how its network is built.
            DistillError: the disk is full, read-only, ...
        """
        if not self.network:
            raise ArtifactError(
                f"{path} could never be loaded: the artifact lacks `network`, the network's recipe entry"
            )
        data = self.to_bytes()
        with atomic.replacing(Path(path)) as part:
            part.write_bytes(data)
        return len(data)


def store(artifact: Artifact, stored: Mapping[str, Stored]) -> Artifact:
    """Adopt compact forms of parameters, and make the model compute with exactly what they decode to.

    A form that takes the place of a pruned tensor's keeps its zeros from then on.

    Raises:
        RecipeError: it has other values in place of the zeros.
    """
    stored = {name: inherit_zeros(artifact.stored.get(name), form) for name, form in stored.items()}
    model = artifact.copy_model()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, compact in stored.items():
            parameters[name].copy_(compact.decode())
    return replace(artifact, model=model, stored={**artifact.stored, **stored})


def open_artifact(path: Path | str, allow: Collection[str] = ()) -> Artifact:
    """Read what `Artifact.save` wrote; the network computes exactly what the saved one did.

    Args:
        path: the file.
        allow: modules outside ``students`` and ``distill`` that may be imported to build the network.

    Raises:
        ArtifactError: the file is missing, truncated, altered or newer, needs code that is not allowed, or its network
            is no longer built as it was.
    """
    tensors, head = file_format.read(Path(path))
    plans = tuple(Plan(**plan) for plan in head["plans"])
    _refuse_outside([plan.hook for plan in plans], allow)
    _refuse_outside(_texts(head["forms"]), allow)
    model = build_network(head["network"], allow)
    tensors = byte_planes.unpack(tensors[PACKED]) if head[PACKED] else tensors
    try:
        for plan in plans:
            model = surgery.find(plan.hook)(model, plan.layers)
        stored = _fill(model, tensors, head["forms"])
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} does not fit the network it names, as that is built now: {error}") from error
    history = tuple(Step.from_json(row) for row in head["history"])
    return Artifact(model.eval(), stored, history, head["network"], plans, head["about"], head[PACKED])


def load(path: Path | str, allow: Collection[str] = ()) -> nn.Module:
    """The network of an artifact, ready to run. See `open_artifact`."""
    return open_artifact(path, allow).model


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and persistent buffer once, under the first of its names."""
    first: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in state.items() if first.setdefault(id(tensor), name) == name}


@torch.no_grad()
def _fill(model: nn.Module, tensors: dict[str, Tensor], forms: Iterable[Mapping[str, Any]]) -> dict[str, Stored]:
    """Give the model's tensors their values; returns the compact forms."""
    state = _state(model)
    names = list(state)
    stored: dict[str, Stored] = {}
    for form in forms:
        for name in (names[position] for position in form["of"]):
            parts = {key: tensors.pop(key) for key in list(tensors) if key.startswith(f"{name}/")}
            stored[name] = from_record(form["settings"], {key.removeprefix(f"{name}/"): t for key, t in parts.items()})
            tensors[name] = stored[name].decode()
    have, need = ({name: tuple(t.shape) for name, t in some.items()} for some in (tensors, state))
    if differ := sorted({name for name, _ in have.items() ^ need.items()}):
        sides = [
            f"{some.get(differ[0], 'missing')} in the {where}" for some, where in ((have, "file"), (need, "network"))
        ]
        raise ValueError(f"tensor '{differ[0]}' is {' and '.join(sides)}")
    for name, tensor in state.items():
        tensor.copy_(tensors[name])
    return stored


def _texts(value: Any) -> Iterator[str]:
    """Every word of plain data."""
    if isinstance(value, str):
        yield from value.split()
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
