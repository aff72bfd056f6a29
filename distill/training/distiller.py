"""One stage of teacher-student training; without losses it is plain supervised training."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatch
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchmetrics import MetricCollection

from distill.artifact import Plan
from distill.batch import Batch
from distill.errors import RecipeError, TrainingError
from distill.measure.evaluation import numbers
from distill.models.copied import copied
from distill.models.taps import Taps
from distill.recipe.schema import Optimizer, Schedule, Stage
from distill.tasks import Task
from distill.training._not_finite import explain
from distill.training.averaging import average
from distill.training.blockwise import Blockwise
from distill.training.compile import compile_networks
from distill.training.loss_terms import Term, with_taps
from distill.training.memory_format import to_memory_format
from distill.training.method import Method, Setting
from distill.training.mixing import Mixing
from distill.training.mutual import Mutual
from distill.training.optimizers import build_optimizer, build_schedule, parameter_groups
from distill.training.plain import Plain
from distill.training.strided_convolutions import subsample_first, subsample_within
from distill.training.teacher import Teacher

TEACHER = "method.teacher."
"""How the keys of the teacher's tensors begin in a state dict."""


class Distiller(pl.LightningModule):
    """Trains ``student`` for one stage.

    Args:
        student: the network to train, in place.
        teacher: the network to learn from, or None.
        task: what an output means.
        stage: losses, epochs, which parameters to train.
        peer: a second network that learns beside the student and takes the teacher's place, or None.
        optimizer: used where the stage has none of its own.
        schedule: used where the stage has none of its own.
        example: a few samples: the shapes of all taps follow from them, no recipe ever states a channel count.
        injectable: what losses may ask for when they are built, beside features (``train_labels``, ``batch_size``).
        cached: puts a cache before the teacher.
        seed: every epoch seeds its random numbers with this, its own number and that of the process, so that a resumed
            run repeats them.
        channels_last: the memory layout of the inputs.
        compiled: teacher and students run as compiled code while they train.

    Raises:
        RecipeError: a tap that does not exist, feature maps that a loss cannot compare, no compiler, or no residual
            blocks for stochastic depth.
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
        self.method = build_method(student, teacher, peer, Setting(task, stage, example, injectable, cached))
        self.mixing = Mixing(stage.mix, task, self.terms) if stage.mix else None
        self.average = average(self.student.model, stage.ema) if stage.ema else None
        self.averaged = 0
        """The step of the latest update of the average."""
        self._check_average()
        self.train()
        self.metrics: MetricCollection = task.metrics().clone(prefix="val/")
        self._freeze()
        self._groups()  # a glob that matches nothing is refused before anything is trained
        to_memory_format(self, self.memory_format)
        if compiled and self.method.depth:
            raise RecipeError("compiled code leaves no blocks out: set compile=false, or remove stochastic_depth")
        if compiled:
            compile_networks(self.method.to_compile())
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, [*self._never_sent()])

    @property
    def student(self) -> Taps:
        """The network in training, with its taps."""
        return self.method.student

    @property
    def teacher(self) -> nn.Module | None:
        """A `Teacher`, or a cache before one."""
        return self.method.teacher

    @property
    def terms(self) -> Iterable[Term]:
        """The stage's losses."""
        return [cast(Term, term) for term in self.method.terms.values()]

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """All but the samples' positions, by which a cache looks up outputs: reading them back waits for the GPU."""
        moved: Batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return moved._replace(sample=batch.sample)

    def setup(self, stage: str) -> None:
        if self.trainer.strategy.root_device.type == "cpu":
            subsample_first(self)

    def teardown(self, stage: str) -> None:
        subsample_within(self)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        batch = self._to_memory_format(self.mixing(batch) if self.mixing else batch)
        values = self.method.step(batch, self._epoch(), self._progress())
        total = torch.stack(list(values.values())).sum()
        self._check(total, values, batch.inputs)
        self._log({**values, "loss": total})
        return total

    def on_train_batch_end(self, *_: Any) -> None:
        if self.average and self.global_step != self.averaged:  # gradients of several batches may make one step
            self.averaged = self.global_step
            self.average.update_parameters(self.student.model)

    def on_validation_epoch_start(self) -> None:
        # Not an attribute of its own: a module there would be trained, moved and saved as a part of this one.
        self.validated = [self._kept()[0].eval()]

    def validation_step(self, batch: Batch, _: int) -> None:
        self.task.update(self.metrics, self.validated[0](self._to_memory_format(batch).inputs), batch)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(numbers(self.metrics.compute()))  # torchmetrics has already gathered them from all processes
        self.metrics.reset()

    def on_fit_start(self) -> None:
        """Losses that learn something before their stage do so, unless a checkpoint to resume from has it."""
        for term in self.terms:
            term.prepare(lambda path: TeacherFeatures(self, path))

    def on_train_epoch_start(self) -> None:
        self.sums: dict[str, tuple[Tensor, int]] = {}
        self.averaged = self.global_step
        self._seed_epoch()
        for module in self.student.model.modules():
            learned = [parameter.requires_grad for parameter in module.parameters()]
            if learned and not any(learned):
                module.eval()  # a frozen batch norm keeps its statistics too

    def configure_optimizers(self) -> Any:
        clips = bool(self.trainer.gradient_clip_val)
        optimizer = build_optimizer(self._groups(), self.optimizer, fused=self.device.type == "cuda" and not clips)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = build_schedule(optimizer, self.schedule, steps=steps, epochs=self.stage.epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        for key in [key for key in state if key.startswith(TEACHER)]:
            del state[key]  # in place: a new dict would lose the versions of modules that a state dict carries

    def deployed(self) -> tuple[nn.Module, list[Plan]]:
        """The network to keep, and how its structure was changed."""
        student, plans = self._kept()
        return student.requires_grad_(True).eval(), plans

    def _kept(self) -> tuple[nn.Module, list[Plan]]:
        """The student or the average of its weights, or what stochastic depth and losses make of a copy of it."""
        depth = self.method.depth
        student, plans = depth.folded() if depth else self.average.module if self.average else self.student.model, []
        for term in self.terms:
            for deploy, path in term.deployments():
                try:
                    student, plan = deploy(copied(student), path)
                except ValueError as error:  # of losses, which know nothing of recipes
                    raise RecipeError(f"loss '{term.key}': {error}") from error
                plans.append(plan)
        return student, plans

    def _log(self, values: Mapping[str, Tensor]) -> None:
        """Their means over the epoch, logged once: in every step it costs Lightning milliseconds."""
        for key, value in values.items():
            value = value.detach().float()  # bfloat16 has no digits left to add a step's loss to an epoch's
            total, steps = self.sums.get(key, (torch.zeros_like(value), 0))
            self.sums[key] = total + value, steps + 1
        if self.trainer.is_last_batch:
            means = {f"train/{key}": total / steps for key, (total, steps) in self.sums.items()}
            self.log_dict(means, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def _to_memory_format(self, batch: Batch) -> Batch:
        return batch._replace(inputs=batch.inputs.contiguous(memory_format=self.memory_format))

    def _seed_epoch(self) -> None:
        """Each process draws its own numbers for its own images; the first one draws those of a single process."""
        seed = self.seed * 1_000_003 + self.current_epoch
        apart = 1_000_000_007  # below 2**32: generators on CPUs read no further bits of a seed
        torch.manual_seed(seed + apart * self.global_rank)
        if self.method.depth and self.trainer.world_size > 1:
            self.method.depth.draw_alike(seed + apart * self.trainer.world_size)

    def _epoch(self) -> float:
        """Epochs done, the present one counted whole: the first epoch of a warm-up already has some weight."""
        return self.current_epoch + 1.0

    def _progress(self) -> float:
        """The part of the stage that is done, from 0 to 1."""
        return self.global_step / float(self.trainer.estimated_stepping_batches)

    def _never_sent(self) -> Iterator[str]:
        """Buffers that DDP would copy to every process in every step, although they are equal there anyway."""
        for path, module in self.named_modules():
            if getattr(module, "same_everywhere", False) or f"{path}.".startswith(TEACHER):
                yield from (f"{path}.{name}" for name, _ in module.named_buffers(recurse=False))

    def _check_average(self) -> None:
        if self.average and self.method.depth:
            raise RecipeError(
                "an average of weights knows no blocks left out at random: remove ema or stochastic_depth"
            )
        learned = [term.key for term in self.terms if term.deployments() and any(True for _ in term.parameters())]
        if self.average and learned:
            raise RecipeError(
                f"loss '{learned[0]}' learns a part that ships with the student, and ema averages the student alone: "
                "remove ema"
            )

    def _freeze(self) -> None:
        chosen = [
            parameter.requires_grad_(any(fnmatch(name, pattern) for pattern in self.stage.train))
            for name, parameter in self.student.model.named_parameters()
        ]
        if not any(parameter.requires_grad for parameter in chosen):
            raise RecipeError(f"train: {self.stage.train} matches no parameter of the student")

    def _groups(self) -> list[dict[str, Any]]:
        """Parameter groups by learning rate."""
        named = {path: p for path, p in self.student.model.named_parameters() if p.requires_grad}
        known = {id(parameter) for parameter in named.values()}
        others = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        return parameter_groups(named, others, self.optimizer)

    def _check(self, total: Tensor, values: Mapping[str, Tensor], inputs: Tensor) -> None:
        # Reading a value waits for the GPU: read one in fifty.
        if (total.is_cuda and self.global_step % 50) or total.isfinite():
            return
        at = {"epoch": self.current_epoch + 1, "step": self.global_step}
        raise TrainingError(explain(values, inputs, **at, lr=self.optimizer.lr, precision=self.trainer.precision))


@torch.no_grad()
def build_method(student: nn.Module, teacher: nn.Module | None, peer: nn.Module | None, setting: Setting) -> Method:
    """Plain, mutual or blockwise training, as the stage says."""
    stage = setting.stage
    losses = {key: with_taps(loss, student, peer or teacher) for key, loss in stage.losses.items()}
    if peer:
        return Mutual(student, peer.eval(), losses, setting)
    if stage.blocks:
        return Blockwise(student, teacher, losses, setting, stage.blocks)
    return Plain(student, teacher, losses, setting)


class TeacherFeatures:
    """The teacher's features at one tap, as the stage's steps compute them; each iteration is one epoch of the training
    set, augmented alike."""

    def __init__(self, module: Distiller, path: str) -> None:
        self.module, self.path = module, path

    def __iter__(self) -> Iterator[Tensor]:
        module, precision = self.module, self.module.trainer.precision_plugin
        for batch in module.trainer.datamodule.train_dataloader():  # type: ignore[attr-defined]
            batch = module._to_memory_format(module.transfer_batch_to_device(batch, module.device, 0))
            with precision.forward_context():
                features = module.teacher(precision.convert_input(batch))[self.path]  # type: ignore[misc]
            yield features.to(module.dtype)
