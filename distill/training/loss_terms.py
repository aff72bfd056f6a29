"""A loss, bound to the taps of one recipe entry."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast, get_type_hints

import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.errors import RecipeError, TapError
from distill.losses import loss as losses
from distill.models.layout import Layout, channels_first, layouts
from distill.models.taps import Features, stages
from distill.processes import share
from distill.recipe.schema import Loss
from distill.registry import injected, needs_teacher, options, required
from distill.training.ensemble import member
from distill.training.loss_checks import axes_of, compares_one_shape

ABSENT = {
    "train_labels": "the training samples of this data set have no single class each",
    "num_classes": "this data set has no classes",
}
"""Why an argument cannot be injected."""


class Term(nn.Module):
    """``weight * loss(student taps, teacher taps)``.

    A loss that declares ``student: list[Tensor]`` reads all taps at once, as many of each network as the recipe
    names. Any other reads one pair of taps; several pairs are summed. One that does not ask for ``teacher`` reads the
    student's taps alone.

    Args:
        key: the entry's key in ``losses``, for messages.
        spec: the recipe entry, its tap paths resolved.
        student: the student's features of an example, for their shapes.
        teacher: the teacher's features of the same example.
        injectable: what else a loss may ask for when it is built.
    """

    prepared: Tensor

    def __init__(
        self,
        key: str,
        spec: Loss,
        student: Features,
        teacher: Features,
        injectable: Mapping[str, Any],
        layouts: Mapping[str, Mapping[str, Layout]] | None = None,
    ) -> None:
        super().__init__()
        self.key, self.spec, self.layouts = key, spec, layouts or {}
        component = losses.find(spec.name)
        _check_parameters(spec.name, component)
        call = getattr(component, "forward", component)
        annotation = get_type_hints(call).get("student")
        self.sees_all, self.reads_maps = annotation == list[Tensor], _reads_maps(annotation)
        self.needs_teacher = needs_teacher(spec.name)
        self.extras = [need for need in injected(call) if need not in ("student", "teacher")]
        if compares_one_shape(call):
            self._check_shapes(student, teacher)
        taps = spec.teacher or [""] * len(spec.student)
        self.calls = [
            self._build(component, {**injectable, **_shapes(s, t), "teacher_paths": spec.teacher}, tap)
            for (s, t), tap in zip(self._inputs(student, teacher), taps, strict=False)
        ]
        self.parts = nn.ModuleList(call for call in self.calls if isinstance(call, nn.Module))
        self.register_buffer("prepared", torch.tensor(False))

    def forward(self, student: Features, teacher: Features, batch: Batch, epoch: float = torch.inf) -> Tensor:
        """The weighted loss; ``epoch`` decides how much of a warm-up is over."""
        extras = {need: getattr(batch, need) for need in self.extras}
        if "sample" in extras:  # in training it stays on the CPU
            extras["sample"] = batch.sample.to(batch.inputs.device, non_blocking=True)
        values = []
        for call, (s, t) in zip(self.calls, self._inputs(student, teacher), strict=True):
            features = {"teacher": t} if self.needs_teacher else {}
            try:
                values.append(call(s, **features, **extras))
            except Exception as error:
                error.add_note(
                    f"while computing loss '{self.key}' of {self.spec.student} {_sizes(s)} "
                    f"against {self.spec.teacher} {_sizes(t)}"
                )
                raise
            _check_number(values[-1])
        return self.weight(epoch) * torch.stack(values).sum()

    def prepare(self, features: Callable[[str], Iterable[Tensor]]) -> None:
        """Run the ``prepare`` of the parts that learn something before their stage, once; a resumed run skips it.

        Args:
            features: the teacher's features at a path, batch by batch; they can be iterated over again.
        """
        preparing = [(part, path) for part, path in zip(self.parts, self.spec.teacher) if hasattr(part, "prepare")]
        if self.prepared or not preparing:
            return
        for part, path in preparing:
            cast(Any, part).prepare(Arranged(features(path), partial(self._arranged, "teacher", path)))
            share(part)
        self.prepared.fill_(True)

    def deployments(self) -> list[tuple[Callable[..., Any], str]]:
        """``deploy`` of the parts that change the network to keep, and the student's tap that each is called with."""
        pairs = zip(self.parts, self.spec.student, strict=False)
        return [(cast(Any, part).deploy, path) for part, path in pairs if hasattr(part, "deploy")]

    def weight(self, epoch: float) -> float:
        warmup = self.spec.warmup_epochs
        return self.spec.weight * (min(epoch / warmup, 1.0) if warmup else 1.0)

    def _inputs(self, student: Features, teacher: Features) -> list[tuple[Any, Any]]:
        s = [self._arranged("student", path, student[path]) for path in self.spec.student]
        t: list[Any] = [None] * len(s)
        if self.needs_teacher:
            t = [self._arranged("teacher", path, teacher[path]) for path in self.spec.teacher]
        if self.sees_all:
            return [(s, t)]
        if len(s) != len(t):
            raise RecipeError(
                f"loss '{self.key}' compares taps in pairs, "
                f"but the recipe gives {len(s)} of the student and {len(t)} of the teacher"
            )
        return list(zip(s, t, strict=True))

    def _check_shapes(self, student: Features, teacher: Features) -> None:
        pairs = zip(self._inputs(student, teacher), self.spec.student, self.spec.teacher, strict=True)
        for (s, t), ours, other in pairs:
            if s.shape != t.shape:
                shapes = f"'{ours}' of the student is {_sizes(s)} and '{other}' of the teacher {_sizes(t)}"
                remedy = "tap others, or let both networks read images of one size"
                raise RecipeError(f"it compares tensors of one shape, but {shapes}: {remedy}")

    def _arranged(self, role: str, path: str, features: Tensor) -> Tensor:
        """Channels first; tokens as the recipe says."""
        written = self.spec.layout.get(role)
        layout = written or self.layouts.get(role, {}).get(path, "channels_first")
        features = channels_first(features, cast(Layout, layout))
        if self.reads_maps and features.dim() == 3:
            raise RecipeError(
                f"it reads maps (batch, channels, height, width), but '{path}' of the {role} gives tokens (batch, "
                f"tokens, channels) {tuple(features.shape)}: tap a map, or arrange them with layout: {{{role}: tokens}}"
            )
        return features

    def _build(self, component: Callable[..., Any], injectable: dict[str, Any], tap: str) -> Callable[..., Tensor]:
        settings = options(component, self.spec)
        if not inspect.isclass(component):
            return partial(component, **settings)
        if not self.sees_all and self.needs_teacher:
            injectable["teacher_model"], injectable["teacher_path"] = member(injectable["teacher_model"], tap)
        if absent := [need for need in injected(component) if need not in injectable]:
            raise RecipeError(f"it needs {absent[0]}, but {ABSENT.get(absent[0], 'this stage has none')}")
        return cast(nn.Module, component(**{need: injectable[need] for need in injected(component)}, **settings))


@dataclass(frozen=True)
class Arranged:
    """Features that can be iterated over again and again, each laid out as the loss has them in training."""

    features: Iterable[Tensor]
    arranged: Callable[[Tensor], Tensor]

    def __iter__(self) -> Iterator[Tensor]:
        return map(self.arranged, self.features)


@torch.no_grad()
def bind(
    specs: Mapping[str, Loss], student: Features, teacher: Features, example: Batch, injectable: Mapping[str, Any]
) -> nn.ModuleDict:
    """A term for every entry of ``losses``, each computed once on the example.

    Args:
        specs: the entries, their taps written out.
        student: the example's features, as the student has them.
        teacher: as the teacher has them.
        example: the batch.
        injectable: what losses may ask for when they are built.

    Raises:
        RecipeError: names the loss and the feature maps that it cannot compare.
    """
    terms = nn.ModuleDict()
    models = {
        "student": (injectable.get("student_model"), student),
        "teacher": (injectable.get("teacher_model"), teacher),
    }
    found = {role: layouts(model, example.inputs, features) for role, (model, features) in models.items() if model}
    for key, spec in specs.items():
        try:
            terms[key] = Term(key, spec, student, teacher, injectable, found)
            terms[key](student, teacher, example)
        except Exception as error:
            notes = "; ".join(getattr(error, "__notes__", []))
            first = str(error).strip().partition("\n")[0]
            raise RecipeError(f"loss '{key}' does not fit these networks: {first} {notes}".rstrip()) from error
    return terms


def with_taps(spec: Loss, student: nn.Module, teacher: nn.Module | None) -> Loss:
    """The entry with its tap paths written out; a loss that reads no teacher has no teacher's taps."""
    asks = needs_teacher(spec.name)
    if asks and teacher is None:
        raise TapError(f"loss '{spec.name}' compares with a teacher, but there is none")
    if not asks and spec.teacher:
        raise RecipeError(f"loss '{spec.name}' reads the student alone: remove teacher: {spec.teacher}")
    if spec.taps == "stages":
        teacher_taps = stages(teacher) if asks and teacher else []
        return replace(spec, student=stages(student), teacher=teacher_taps, taps=None)
    return replace(spec, student=spec.student or [""], teacher=(spec.teacher or [""]) if asks else [])


def _check_number(value: Any) -> None:
    if not isinstance(value, Tensor) or value.dim():
        found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise RecipeError(f"it returns {found}, but a loss is one number: take its mean")


def unique(groups: Iterable[list[str]]) -> list[str]:
    """Every path once, in the order of first appearance."""
    return list(dict.fromkeys(path for group in groups for path in group))


def _check_parameters(name: str, component: Callable[..., Any]) -> None:
    """Refuse a loss from outside whose positional parameters are none that can be injected."""
    call = getattr(component, "forward", component)
    unknown = [need for need in required(component) if need not in losses.injectable]
    if unknown or "student" not in injected(call):
        raise RecipeError(
            f"'{name}' has the parameters ({', '.join(injected(call))}): the student's features are called 'student', "
            f"the teacher's 'teacher', and others are among {', '.join(sorted(losses.injectable))}; "
            "settings of a recipe are keyword-only"
        )


def _reads_maps(annotation: Any) -> bool:
    """Whether a shape as jaxtyping writes it is that of a map: four axes, none of them variadic."""
    axes = axes_of(annotation)
    return len(axes) == 4 and not any(axis.startswith(("*", "...")) for axis in axes)


def _shapes(student: Any, teacher: Any) -> dict[str, Any]:
    kind = "shapes" if isinstance(student, list) else "shape"
    return {f"student_{kind}": _sizes(student), f"teacher_{kind}": _sizes(teacher)}


def _sizes(features: Any) -> Any:
    """The shape of a feature map, those of several in a list, None where there is none."""
    if isinstance(features, list):
        return [_sizes(feature) for feature in features]
    return None if features is None else tuple(features.shape)
