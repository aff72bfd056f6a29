"""A teacher's outputs at its taps for every view of every training sample, in one folder."""

import logging
import shutil
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Bool
from rich.filesize import decimal
from torch import Tensor

from distill.batch import Batch
from distill.console import console
from distill.errors import DistillError, RecipeError
from distill.files import sealed
from distill.recipe.schema import Cache
from distill.training.cache import _outputs
from distill.training.cache._coding import Coding, coding_for
from distill.training.cache._outputs import Outputs, Positions
from distill.training.output_parts import PART

log = logging.getLogger(__name__)

Which = Bool[np.ndarray, " batch"]


class Store:
    """Shared by processes and by runs: the one that misses an output writes it. One file for every tap.

    Args:
        folder: one that `acquire` has checked.
        paths: the taps.
        samples: of the training set.
        settings: the recipe's ``cache`` section.
        parts: names what parts of the output depend on beside the folder's identity.
    """

    def __init__(self, folder: Path, paths: Collection[str], samples: int, settings: Cache, parts: str = "") -> None:
        self.folder, self.samples, self.settings, self.parts = folder, samples, settings, parts
        self.rows = samples * settings.views
        self.files = {path: folder / self._file_name(path) for path in paths}
        self.taps: dict[str, Outputs] = {}
        self.trusted = np.zeros(self.rows, bool)
        self.warned = False

    def missing(self, batch: Batch) -> Which:
        """Of which samples an output is absent or damaged; each row is verified once in every process."""
        rows = self._rows(batch)
        if not self.taps:
            self._open()
        doubtful = ~self.trusted[rows]
        if self.taps and doubtful.any():
            self._verify(rows[doubtful], _checksums(batch.inputs, doubtful))
        return ~self.trusted[rows]

    def read(self, batch: Batch) -> dict[str, Tensor]:
        """The outputs for a batch of which none is missing, on the batch's device."""
        rows = self._rows(batch)
        return {path: tap.coding.decode(tap.read(rows), batch.inputs.device) for path, tap in self.taps.items()}

    def summary(self) -> str:
        """How much there is, and where."""
        return self._summary(tap.coding for tap in self.taps.values())

    def write(self, batch: Batch, which: Which, outputs: Mapping[str, Tensor]) -> None:
        """Keep the outputs for some samples of a batch.

        Raises:
            RecipeError: outputs that cannot be kept.
            DistillError: there is no room for them.
        """
        if not self.taps:
            self._reserve(outputs)
            self._open()
        rows, inputs = self._rows(batch)[which], _checksums(batch.inputs, which)
        for path, tap in self.taps.items():
            with _naming(path):
                encoded = tap.coding.encode(outputs[path][torch.from_numpy(which)])
            tap.write(rows, inputs, encoded)
        self.trusted[rows] = True

    def _rows(self, batch: Batch) -> Positions:
        view = batch.view
        if view is None or not 0 <= view < self.settings.views:
            raise RecipeError(
                f"cache: a batch says that it shows view {view}, where there are {self.settings.views} from 0 on: "
                "its data module does not keep to `views`, or its inputs were changed since"
            )
        return view * self.samples + batch.sample.cpu().numpy()

    def _verify(self, rows: Positions, inputs: list[int]) -> None:
        intact, written = np.ones(len(rows), bool), np.ones(len(rows), bool)
        for tap in self.taps.values():
            intact &= tap.intact(rows, inputs)
            written &= tap.written(rows)
        self.trusted[rows] = intact
        if not self.warned and (damaged := int((written & ~intact).sum())):
            self.warned = True
            log.warning(
                "the cache in %s is damaged, or its images changed: %d or more outputs are computed again",
                self.folder,
                damaged,
            )

    def _open(self) -> None:
        """Open the files of all taps if all are there; a damaged one is removed, to be made again."""
        if not all(map(_outputs.exists, self.files.values())):
            return
        with FileLock(self.folder / ".lock"):
            opened: dict[str, Outputs] = {}
            for path, file in self.files.items():
                try:
                    opened[path] = Outputs(file, self.rows)
                except sealed.DamagedFileError as error:
                    log.warning("%s: the teacher's outputs there are computed again", error)
                    _outputs.discard(file)
        self.taps = opened if len(opened) == len(self.files) else {}

    def _reserve(self, outputs: Mapping[str, Tensor]) -> None:
        codings = {path: coding_at(path, outputs[path], self.settings) for path in self.files}
        console.print(f"{'cache':<22} {self._summary(codings.values())}")
        with FileLock(self.folder / ".lock"):
            absent = {path: coding for path, coding in codings.items() if not _outputs.exists(self.files[path])}
            need = sum(_outputs.size(coding, self.rows) for coding in absent.values())
            free = shutil.disk_usage(self.folder).free
            if need > free:
                raise self._full(need, free)
            try:
                for path, coding in absent.items():
                    _outputs.reserve(self.files[path], coding, self.rows)
            except OSError as error:
                raise self._full(need, free) from error

    def _summary(self, codings: Iterable[Coding]) -> str:
        total = sum(_outputs.size(coding, self.rows) for coding in codings)
        views = "1 view" if self.settings.views == 1 else f"{self.settings.views} views"
        return f"{len(self.files)} taps x {views} x {self.samples:,} samples = {decimal(total)} in {self.folder}"

    def _full(self, need: int, free: int) -> DistillError:
        cheaper = [
            "fewer cache.views",
            *(["cache.dtype=float16"] if self.settings.dtype == "float32" else []),
            *(["cache.top_k"] if "" in self.files and not self.settings.top_k else []),
            "another cache.folder",
        ]
        return DistillError(
            f"the cache takes {decimal(need)} in {self.folder}, where {decimal(free)} are free: "
            f"make room, or choose {', '.join(cheaper[:-1])} or {cheaper[-1]}"
        )

    def _file_name(self, path: str) -> str:
        top_k = self.settings.top_k
        if path.startswith(PART):
            return f"part-{path.removeprefix(PART)}-{self.parts}"  # many file systems have no colons
        return f"at-{path}" if path else f"output-top{top_k}" if top_k else "output"


def coding_at(path: str, output: Tensor, settings: Cache) -> Coding:
    """How the outputs at one tap are kept.

    Raises:
        RecipeError: they cannot be; names the tap.
    """
    with _naming(path):
        return coding_for(output, settings.dtype, None if path else settings.top_k)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    try:
        yield
    except RecipeError as error:
        where = f"at '{path}'" if path else "at the output"
        raise RecipeError(f"the teacher's outputs {where} cannot be cached: {error}") from None


def _checksums(inputs: Tensor, which: Which) -> list[int]:
    """Of each of these inputs, in any memory layout."""
    chosen = inputs[torch.from_numpy(which)].flatten(1).contiguous().cpu()
    return [zlib.crc32(row) for row in chosen.view(torch.uint8).numpy()]
