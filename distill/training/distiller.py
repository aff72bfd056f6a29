"""One stage of teacher-student training; without losses it is plain supervised training."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from fnmatch import fnmatch
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from distill.artifact import Plan
from distill.batch import Batch
from distill.errors import RecipeError, TrainingError
from distill.models.auxiliary import auxiliary_weights
from distill.models.taps import Features, Taps
from distill.recipe.schema import Optimizer, Schedule, Stage
from distill.tasks import Task
from distill.training.blocks import Blocks
from distill.training.compile import compile_networks
from distill.training.loss_terms import Term, bind, unique, with_taps
from distill.training.optimizers import build_optimizer, build_schedule, parameter_groups
from distill.training.peer import Peer
from distill.training.stochastic_depth import StochasticDepth
from distill.training.teacher import Teacher


class Distiller(pl.LightningModule):
    """Trains ``student`` for one stage.

    Args:
        student: the network to train, in place.
        teacher: the network to learn from, or None.
        task: what the labels mean.
        stage: losses, epochs, which parameters to train.
        peer: a second network that learns beside the student and takes the teacher's place, or None.
        optimizer: used where the stage has none of its own.
        schedule: used where the stage has none of its own.
        example: one batch, which tells the shapes of all taps: no recipe ever states a channel count.
        offered: what losses may ask for beside features (``train_labels``, ``batch_size``).
        cached: puts a cache before the teacher.
        seed: every epoch starts its random numbers from this and its own number, so that a resumed run repeats them.
        channels_last: the memory layout of the inputs.
        compiled: teacher and students run as compiled code, while they train.

    Raises:
        RecipeError: a tap that does not exist, feature maps that a loss cannot compare, nothing to compile with, or no
            blocks to leave out.
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
        injectable: Mapping[str, Any],
        peer: nn.Module | None = None,
        cached: Callable[[Teacher], nn.Module] = lambda teacher: teacher,
        seed: int = 0,
        channels_last: bool = False,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.task, self.stage, self.seed = task, stage, seed
        self.optimizer, self.schedule = stage.optimizer or optimizer, stage.schedule or schedule
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._build(student, teacher, peer, example, injectable, cached)
        self.metrics: MetricCollection = task.metrics().clone(prefix="val/")
        self._freeze()
        self._groups()  # a glob that matches nothing is told before anything is trained
        self.to(memory_format=self.memory_format)
        if compiled and self.depth:
            raise RecipeError("compiled code leaves no blocks out: set compile=false, or remove stochastic_depth")
        if compiled:
            ours = None if self.blocks else self.student  # blocks hook into it anew in each step
            compile_networks(part for part in (ours, self.teacher, self.peer) if part)

    @torch.no_grad()
    def _build(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        peer: nn.Module | None,
        example: Batch,
        injectable: Mapping[str, Any],
        cached: Callable[[Teacher], nn.Module],
    ) -> None:
        """Student, whom it learns from, and the terms between them, whose shapes the example tells."""
        cuts = self.stage.blocks
        losses = {key: with_taps(loss, student, peer or teacher) for key, loss in self.stage.losses.items()}
        injectable = {**injectable, "student_model": student, "teacher_model": peer or teacher}
        self.student = Taps(student.eval(), unique(loss.student for loss in losses.values()))
        _, seen = self.student(example.inputs)
        self.peer = Peer(peer.eval(), losses, seen, example, injectable) if peer else None
        heard = unique([*(loss.teacher for loss in losses.values()), cuts.teacher if cuts else []])
        live = Teacher(teacher, heard, batch_statistics=self.stage.teacher_bn == "train") if teacher and heard else None
        told: Features = self.peer(example.inputs)[1] if self.peer else live(example) if live else {}
        self.terms = bind(losses, seen, told, example, injectable)
        head = bool(losses or self.stage.task_weight)
        self.blocks = Blocks(cuts, Taps(student, cuts.student)(example.inputs)[1], told, head=head) if cuts else None
        self.teacher = cached(live) if live else None
        depth = self.stage.depth()
        self.depth = StochasticDepth(student, example.inputs, depth.survival, depth.scaling) if depth else None
        self.train()

    def training_step(self, batch: Batch, _: int) -> Tensor:
        batch, epoch = self._to_memory_format(batch), self._epoch()
        values: dict[str, Tensor] = {}
        theirs, told = self.peer(batch.inputs) if self.peer else (None, self.teacher(batch) if self.teacher else {})
        with self.depth.drawn() if self.depth else nullcontext():
            if self.blocks:
                output, seen, values = self.blocks(self.student, told, batch, self._progress())
            else:
                output, seen = self.student(batch.inputs)
        if self.stage.task_weight and output is not None:
            values["task"] = self.stage.task_weight * self.task.loss(output, batch.labels)
            values |= {
                name: self.stage.task_weight * weight * self.task.loss(seen[name], batch.labels)
                for name, weight in auxiliary_weights(self.student.model).items()
                if name in seen
            }
        fixed = {path: feature.detach() for path, feature in told.items()}
        if output is not None:  # else the block that leads to it has no turn
            values |= {key: term(seen, fixed, batch, epoch) for key, term in self.terms.items()}
        if self.peer:
            values |= self.peer.learn(theirs, told, seen, batch, self.task, self.stage.task_weight, epoch)
        total = torch.stack(list(values.values())).sum()
        self._check(total, values)
        self._log({**values, "loss": total})
        return total

    def on_validation_epoch_start(self) -> None:
        # Not an attribute of its own: a module there would be trained, moved and saved as a part of this one.
        self.validated = [self._kept()[0].eval()]

    def validation_step(self, batch: Batch, _: int) -> None:
        self.metrics.update(self.validated[0](self._to_memory_format(batch).inputs), batch.labels)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.metrics.compute())  # torchmetrics has already gathered them from all processes
        self.metrics.reset()

    def on_fit_start(self) -> None:
        """Losses that learn something beforehand do so, unless the checkpoint that training goes on from has it."""
        for term in self.terms.values():
            cast(Term, term).prepare(lambda path: TeacherFeatures(self, path))

    def on_train_epoch_start(self) -> None:
        self.sums: dict[str, tuple[Tensor, int]] = {}
        torch.manual_seed(self.seed * 1_000_003 + self.current_epoch)
        for module in self.student.model.modules():
            own = list(module.parameters(recurse=False))
            if own and not any(p.requires_grad for p in own):
                module.eval()  # a frozen batch norm keeps its statistics too

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self._groups(), self.optimizer)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = build_schedule(optimizer, self.schedule, steps=steps, epochs=self.stage.epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        for key in [key for key in state if key.startswith("teacher.")]:
            del state[key]  # in place: a new dict would lose the versions of modules that a state dict carries

    def deployed(self) -> tuple[nn.Module, list[Plan]]:
        """The network to keep, and how its structure was changed."""
        student, plans = self._kept()
        return student.requires_grad_(True).eval(), plans

    def _kept(self) -> tuple[nn.Module, list[Plan]]:
        """The student, or what stochastic depth and losses make of a copy of it."""
        student, plans = self.depth.folded() if self.depth else self.student.model, []
        for term in self.terms.values():
            for deploy, path in cast(Term, term).deployments():
                student, plan = deploy(copy.deepcopy(student), path)
                plans.append(plan)
        return student, plans

    def _log(self, values: Mapping[str, Tensor]) -> None:
        """Their means over the epoch, told once: to be told in every step costs Lightning milliseconds."""
        for key, value in values.items():
            total, steps = self.sums.get(key, (torch.zeros_like(value), 0))
            self.sums[key] = total + value.detach(), steps + 1
        if self.trainer.is_last_batch:
            means = {f"train/{key}": total / steps for key, (total, steps) in self.sums.items()}
            self.log_dict(means, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def _to_memory_format(self, batch: Batch) -> Batch:
        return batch._replace(inputs=batch.inputs.contiguous(memory_format=self.memory_format))

    def _epoch(self) -> float:
        """Epochs done, the present one counted whole: the first epoch of a warm-up already has some weight."""
        return self.current_epoch + 1.0

    def _progress(self) -> float:
        """How much of the stage is done, from 0 to 1."""
        return self.global_step / float(self.trainer.estimated_stepping_batches)

    def _freeze(self) -> None:
        chosen = [
            parameter.requires_grad_(any(fnmatch(name, pattern) for pattern in self.stage.train))
            for name, parameter in self.student.model.named_parameters()
        ]
        if not any(parameter.requires_grad for parameter in chosen):
            raise RecipeError(f"train: {self.stage.train} matches no parameter of the student")

    def _groups(self) -> list[dict[str, Any]]:
        """What learns, by learning rate."""
        named = {path: p for path, p in self.student.model.named_parameters() if p.requires_grad}
        known = {id(parameter) for parameter in named.values()}
        others = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        return parameter_groups(named, others, self.optimizer)

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


class TeacherFeatures:
    """What the teacher shows at one tap; every iteration is one epoch of the training set, not augmented anew."""

    def __init__(self, module: Distiller, path: str) -> None:
        self.module, self.path = module, path

    def __iter__(self) -> Iterator[Tensor]:
        module = self.module
        for batch in module.trainer.datamodule.train_dataloader():  # type: ignore[attr-defined]
            batch = module._to_memory_format(module.transfer_batch_to_device(batch, module.device, 0))
            yield module.teacher(batch)[self.path]  # type: ignore[misc]
