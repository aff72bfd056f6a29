"""A run tracked offline, and a reader of what W&B wrote of it."""

import json
import logging
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import wandb
from torch.utils.data import DataLoader
from wandb.proto import wandb_internal_pb2 as messages

from distill.artifact.step import Step
from distill.pipeline.tracking import Tracker

CONFIG = {"seed": 3, "stages": {"distill": {"epochs": 2, "losses": {"kd": {"temperature": 4.0}}}}}
STEPS = (
    Step("teacher", 900, 9000, 3600, {"val/accuracy": 0.9, "test/accuracy": 0.89}, {"batch1": 0.5}, 10.0),
    Step("compress/1-quantize", 100, 1000, 120, {"val/accuracy": 0.8, "test/accuracy": 0.79}, {"batch1": 0.2}, 1.0),
    Step("export/onnx", 100, 1000, 420, {"val/accuracy": 0.8001}, {"batch1": 0.1}, 0.5),
)


class Line(pl.LightningModule):
    """One weight: enough to make a Trainer log."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        loss = self.layer(batch).square().mean()
        self.log("train/kd", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: torch.Tensor, _: int) -> None:
        self.log("val/accuracy", 0.5)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(tracker: Tracker, prefix: str) -> None:
    data = DataLoader(torch.randn(8, 1), batch_size=2)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", logger=tracker.logger(prefix), **quiet)
    trainer.fit(Line(), data, data)


def whole_run(folder: Path, **settings: Any) -> None:
    artifact = folder / "student.safetensors"
    artifact.write_bytes(b"weights")
    with Tracker(folder, name="smoke/1a2b", config=CONFIG, **settings) as tracker:
        fit(tracker, "teacher")
        fit(tracker, "student/distill")
        tracker.steps(STEPS)
        tracker.confusion([[5, 1], [0, 4]], ["cat", "dog"])
        tracker.artifact(artifact, "smoke/student", {"bytes": 7})


class Recorded:
    """An offline run as W&B wrote it: the only reader that W&B ships is its own uploader."""

    def __init__(self, segment: Path) -> None:
        self.run: Any = None
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.artifacts: dict[str, Any] = {}
        self.axes: dict[str, str] = {}
        self.exit_code: int | None = None
        self.segment = segment
        for record in records(next(segment.glob("*.wandb")).read_bytes()):
            getattr(self, f"_{record.WhichOneof('record_type')}", lambda _: None)(record)

    def _run(self, record: Any) -> None:
        self.run = record.run
        self._update(self.config, record.run.config.update)

    def _summary(self, record: Any) -> None:
        self._update(self.summary, record.summary.update)

    def _history(self, record: Any) -> None:
        self.history.append({})
        self._update(self.history[-1], record.history.item)

    def _artifact(self, record: Any) -> None:
        self.artifacts[record.artifact.name] = record.artifact

    def _metric(self, record: Any) -> None:
        self.axes[record.metric.glob_name or record.metric.name] = record.metric.step_metric

    def _exit(self, record: Any) -> None:
        self.exit_code = record.exit.exit_code

    @staticmethod
    def _update(target: dict[str, Any], items: Any) -> None:
        for item in items:
            target[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)

    def table(self, key: str) -> Mapping[str, Any]:
        path = next(row[f"{key}.path"] for row in self.history if f"{key}.path" in row)
        return json.loads((self.segment / "files" / path).read_text())


def records(data: bytes) -> Iterator[Any]:
    """LevelDB's log format after 7 bytes of header: blocks of 32 KiB; checksum, length and kind before each piece."""
    position, whole = 7, b""
    while position < len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield messages.Record.FromString(whole)
            whole = b""


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Our own warnings; wandb fills its log with news of itself."""
    ours = [record for record in caplog.records if record.name == "distill.pipeline.tracking"]
    return [record.message for record in ours if record.levelno == logging.WARNING]


def segments(folder: Path) -> list[Recorded]:
    """What the runs of a folder have written, one by one; W&B's own process has written it all only when it ends."""
    wandb.teardown()
    return [Recorded(path) for path in sorted((folder / "wandb").glob("offline-run-*"))]
