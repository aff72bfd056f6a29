"""One stage of teacher-student training; without losses it is plain supervised training."""

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatch
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from distill.batch import Batch
from distill.errors import RecipeError, TapError, TrainingError
from distill.optim import build_optimizer, build_schedule
from distill.schema import Loss, Optimizer, Schedule, Stage
from distill.taps import Features, Taps, stages
from distill.tasks import Task
from distill.teacher import Teacher
from distill.terms import Term


class Distiller(pl.LightningModule):
    """Trains ``student`` for one stage.

    Args:
        student: the network to train, in place.
        teacher: the network to learn from, or None.
        task: what the labels mean.
        stage: losses, epochs, which parameters to train.
        optimizer: used where the stage has none of its own.
        schedule: used where the stage has none of its own.
        example: one batch, which tells the shapes of all taps: no recipe ever states a channel count.
        offered: what losses may ask for beside features (``train_labels``).
        seed: every epoch starts its random numbers from this and its own number, so that a resumed run repeats them.
        channels_last: the memory layout of the inputs.

    Raises:
        RecipeError: a tap that does not exist, or feature maps that a loss cannot compare.
    """

    strict_loading = False  # checkpoints never contain the teacher

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        task: Task,
        stage: Stage,
        *,
        optimizer: Optimizer,
        schedule: Schedule,
        example: Batch,
        offered: Mapping[str, Any],
        seed: int = 0,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.task, self.stage, self.seed = task, stage, seed
        self.optimizer, self.schedule = stage.optimizer or optimizer, stage.schedule or schedule
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        specs = {key: _with_taps(spec, student, teacher) for key, spec in stage.losses.items()}
        self.student = Taps(student, _unique(spec.student for spec in specs.values()))
        self.teacher = Teacher(teacher, _unique(spec.teacher for spec in specs.values())) if teacher and specs else None
        self.terms = nn.ModuleDict(self._bind(specs, example, {**offered, "teacher_model": teacher}))
        self.metrics: MetricCollection = task.metrics().clone(prefix="val/")
        self._freeze()
        self.to(memory_format=self.memory_format)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        batch = self._laid_out(batch)
        output, student_features = self.student(batch.inputs)
        teacher_features = self.teacher(batch) if self.teacher else {}
        values = {}
        if self.stage.task_weight:
            values["task"] = self.stage.task_weight * self.task.loss(output, batch.labels)
        for key, term in self.terms.items():
            values[key] = term(student_features, teacher_features, batch, self._epoch())
        total = torch.stack(list(values.values())).sum()
        self._check(total, values)
        logged = {f"train/{key}": value.detach() for key, value in {**values, "loss": total}.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(batch.inputs), sync_dist=True)
        return total

    def validation_step(self, batch: Batch, _: int) -> None:
        self.metrics.update(self.student.model(self._laid_out(batch).inputs), batch.labels)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.metrics.compute())  # torchmetrics has already gathered them from all processes
        self.metrics.reset()

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(self.seed * 1_000_003 + self.current_epoch)
        for module in self.student.model.modules():
            own = list(module.parameters(recurse=False))
            if own and not any(p.requires_grad for p in own):
                module.eval()  # a frozen batch norm keeps its statistics too

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer([p for p in self.parameters() if p.requires_grad], self.optimizer)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = build_schedule(optimizer, self.schedule, steps=steps, epochs=self.stage.epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: value for key, value in state.items() if not key.startswith("teacher.")}

    def deployed(self) -> nn.Module:
        """The network to keep: the student, unless a loss says what to put around it."""
        student = self.student.model
        for term in self.terms.values():
            assert isinstance(term, Term)
            for part, path in zip(term.parts, term.spec.student, strict=False):
                if hasattr(part, "deploy"):
                    student = part.deploy(student, path)  # type: ignore[operator]
        return student.requires_grad_(True).eval()

    def _laid_out(self, batch: Batch) -> Batch:
        return batch._replace(inputs=batch.inputs.contiguous(memory_format=self.memory_format))

    def _epoch(self) -> float:
        """Epochs done, the present one counted whole: the first epoch of a warm-up already has some weight."""
        return self.current_epoch + 1.0

    @torch.no_grad()
    def _bind(self, specs: Mapping[str, Loss], example: Batch, offered: Mapping[str, Any]) -> dict[str, Term]:
        terms = {}
        student, teacher = self._probe(example)
        for key, spec in specs.items():
            try:
                terms[key] = Term(key, spec, student, teacher, offered)
                terms[key](student, teacher, example)
            except Exception as error:
                notes = "; ".join(getattr(error, "__notes__", []))
                first = str(error).strip().partition("\n")[0]
                raise RecipeError(f"loss '{key}' does not fit these networks: {first} {notes}".rstrip()) from error
        return terms

    @torch.no_grad()
    def _probe(self, example: Batch) -> tuple[Features, Features]:
        self.student.eval()
        _, student = self.student(example.inputs)
        teacher = self.teacher(example) if self.teacher else {}
        self.student.train()
        return student, teacher

    def _freeze(self) -> None:
        chosen = [
            parameter.requires_grad_(any(fnmatch(name, pattern) for pattern in self.stage.train))
            for name, parameter in self.student.model.named_parameters()
        ]
        if not any(parameter.requires_grad for parameter in chosen):
            raise RecipeError(f"train: {self.stage.train} matches no parameter of the student")

    def _check(self, total: Tensor, values: Mapping[str, Tensor]) -> None:
        # On a GPU every look at a value waits for it: look now and then.
        if total.is_cuda and self.global_step % 50:
            return
        if not total.isfinite():
            terms = ", ".join(f"{key} {value.item():.3g}" for key, value in values.items())
            raise TrainingError(
                f"the loss is no longer a number in epoch {self.current_epoch + 1}, step {self.global_step} ({terms}); "
                f"lower optimizer.lr (now {self.optimizer.lr}) or the weight of the term that grew"
            )


def _with_taps(spec: Loss, student: nn.Module, teacher: nn.Module | None) -> Loss:
    """The entry with its tap paths written out."""
    if teacher is None:
        raise TapError(f"loss '{spec.name}' compares with a teacher, but there is none")
    if spec.taps == "stages":
        return replace(spec, student=stages(student), teacher=stages(teacher), taps=None)
    return replace(spec, student=spec.student or [""], teacher=spec.teacher or [""])


def _unique(groups: Any) -> list[str]:
    return list(dict.fromkeys(path for group in groups for path in group))
