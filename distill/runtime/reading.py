"""Opens an artifact's file that holds its graph, and believes none of it. PyTorch is not needed."""

from math import prod
from pathlib import Path

from distill.container import file_format
from distill.container.file import File
from distill.errors import ArtifactError
from distill.runtime.decoding import Weight, decode
from distill.runtime.graph import Graph
from distill.runtime.network import Network


def load(path: Path | str, *, lookups: bool = False) -> Network:
    """The network in an artifact's file.

    Args:
        path: what `python -m distill export FILE --to runtime` wrote.
        lookups: whether layers whose weights share values compute with these; see `distill.runtime.lookups`.

    Raises:
        ArtifactError: the file is missing, truncated, altered or newer, holds no graph, an operator or a storage format
            that the runtime does not know, or stands for more memory than a file of its length may.
    """
    path = Path(path)
    parts, head = file_format.read(path)
    if not isinstance(head.get("graph"), str):
        raise ArtifactError(
            f"{path} holds no graph, which is needed where PyTorch is not: "
            f"where it is, run `python -m distill export {path} --to runtime`"
        )
    try:
        file = File(parts, head)
        graph = Graph.from_text(head["graph"])
        tensors = _Tensors(file, file_format.memory_limit(path.stat().st_size))
        return Network(graph, tensors, head["about"], lookups=lookups)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error
    except Exception as error:  # decoders run on data that anybody may have written
        why = str(error).partition("\n")[0] or type(error).__name__
        raise ArtifactError(f"{path} has impossible content: {why}") from error


class _Tensors:
    """The tensors of a file by name, as long as all of them together fit what the file may stand for."""

    def __init__(self, file: File, limit: int) -> None:
        self.file, self.left = file, limit

    def __call__(self, name: str) -> Weight:
        if name not in self.file.names:
            raise ValueError(f"its graph reads tensor '{name}', which is not in the file")
        settings, parts = self.file.record(name, self.left)
        value = decode(settings, parts, self.left)
        self.left -= 4 * prod(value.shape)
        if self.left < 0:
            raise ValueError("its tensors take more memory than a file of its length may stand for")
        return value
