"""The arrays of an artifact's file by their names in the network, encoded or not."""

from collections.abc import Mapping
from math import prod
from typing import Any

from distill.container.file_format import PACKED
from distill.container.packed import Block, Record
from distill.container.raw import Raw


class File:
    """The tensors of an artifact's file, by their names in the network."""

    def __init__(self, tensors: Mapping[str, Raw], head: Mapping[str, Any]) -> None:
        self.head, self.tensors = head, tensors
        encoded = set(tensors) == {PACKED} and "forms" not in head
        self.block = Block(bytes(tensors[PACKED].data)) if encoded else None
        self.forms = {} if self.block else {name: form["settings"] for form in head["forms"] for name in form["of"]}
        parts = {name: name.rpartition("/")[0] for name in tensors}
        self.names = (
            list(self.block.entries)
            if self.block
            else list(dict.fromkeys(parts[name] if parts[name] in self.forms else name for name in sorted(tensors)))
        )

    def settings(self) -> list[Any]:
        """Of all storage formats in the file."""
        entries = self.block.entries.values() if self.block else ()
        return [*self.forms.values(), *(entry.settings for entry in entries)]

    def check(self, name: str, shape: tuple[int, ...], itemsize: int) -> None:
        """Refuse a tensor of another shape, or one whose parts would take far more memory than it.

        Raises:
            ValueError: it is one.
        """
        if self.block is None:
            found = self.tensors[name].shape if name in self.tensors else shape
        else:
            entry = self.block.entries[name]
            found = entry.parts[0].shape if entry.settings is None else shape
            if sum(part.nbytes for part in entry.parts) > 4 * prod(shape) * itemsize + 2**16:
                raise ValueError(f"the parts of tensor '{name}' are larger than the tensor")
        if tuple(found) != shape:
            raise ValueError(f"tensor '{name}' is {tuple(found)} in the file and {shape} in the network")

    def record(self, name: str, limit: int) -> Record:
        """Settings and parts of one tensor, which take no more bytes than ``limit``."""
        if self.block is not None:
            if sum(part.nbytes for part in self.block.entries[name].parts) > limit:
                raise ValueError(f"tensor '{name}' stands for more than {limit} bytes")
            return self.block.read(name)
        if name not in self.forms:
            return None, {"": self.tensors[name]}
        prefix = f"{name}/"
        parts = {key.removeprefix(prefix): raw for key, raw in self.tensors.items() if key.startswith(prefix)}
        return self.forms[name], parts
