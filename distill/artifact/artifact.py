"""A compressed student: a runnable network, how each of its tensors is stored, and what was done to it.

On disk it is one safetensors file without code: loading builds the network from its recipe entry, repeats the
structural changes in order, and fills in the tensors.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill.artifact.raw import to_raw
from distill.artifact.sparse import Sparse, inherit_zeros, keeps_zeros
from distill.artifact.step import Step
from distill.artifact.storage import Record, Stored, to_record
from distill.container import file_format
from distill.container.file_format import PACKED
from distill.container.packed import pack
from distill.container.raw import Raw
from distill.errors import ArtifactError
from distill.files import atomic
from distill.models.copied import copied


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
    """Whether it is entropy-coded: hooks and fine-tuning come before."""

    def copy_model(self) -> nn.Module:
        """A copy of the model, in eval mode and in the memory layout that a loaded one has."""
        return copied(self.model).to(memory_format=torch.contiguous_format).eval()

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

    def to_bytes(self, graph: str | None = None) -> bytes:
        """The file's content: see docs/artifact.md.

        Args:
            graph: the network as plain data, for programs that run the file without PyTorch.
        """
        records = {
            name: (settings, {part: to_raw(tensor) for part, tensor in parts.items()})
            for name, (settings, parts) in self._records().items()
        }
        head = {
            "network": dict(self.network),
            "plans": [asdict(plan) for plan in self.plans],
            "about": dict(self.about),
            "history": [step.to_json() for step in self.history],
            **({} if graph is None else {"graph": graph}),
        }
        if self.encoded:
            return file_format.encode({PACKED: _bytes(pack(records))}, head)
        forms: dict[str, list[str]] = {}
        for name, (settings, _) in records.items():
            if settings is not None:
                forms.setdefault(json.dumps(settings), []).append(name)
        tensors = {
            f"{name}/{part}" if part else name: raw
            for name, (_, parts) in records.items()
            for part, raw in parts.items()
        }
        head["forms"] = [{"settings": json.loads(settings), "of": names} for settings, names in forms.items()]
        return file_format.encode(tensors, head)

    def _records(self) -> dict[str, Record]:
        return {
            name: to_record(self.stored[name]) if name in self.stored else (None, {"": tensor})
            for name, tensor in state_of(self.model).items()
        }

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


def _bytes(data: bytes) -> Raw:
    return Raw("uint8", (len(data),), data)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and persistent buffer once, under the first of its names."""
    first: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in state.items() if first.setdefault(id(tensor), name) == name}
