"""A loss, bound to the taps of one recipe entry."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast, get_type_hints

import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.errors import RecipeError
from distill.losses import loss as losses
from distill.registry import options, supplied
from distill.schema import Loss

Features = Mapping[str, Tensor]


class Term(nn.Module):
    """``weight * loss(student taps, teacher taps)``.

    A loss that declares ``student: list[Tensor]`` sees all taps at once, as many of each network as the recipe
    names. Any other sees one pair of taps; several pairs are summed. One that does not ask for ``teacher`` sees the
    student's taps alone.

    Args:
        key: the entry's key in ``losses``, for messages.
        spec: the recipe entry, its tap paths resolved.
        student: one probe of the student's features, for their shapes.
        teacher: the same of the teacher.
        offered: whatever else a loss may ask for when it is built.
    """

    def __init__(self, key: str, spec: Loss, student: Features, teacher: Features, offered: Mapping[str, Any]) -> None:
        super().__init__()
        self.key, self.spec = key, spec
        component = losses.find(spec.name)
        call = getattr(component, "forward", component)
        self.sees_all = get_type_hints(call)["student"] == list[Tensor]
        self.needs_teacher = needs_teacher(spec)
        self.extras = [need for need in supplied(call) if need not in ("student", "teacher")]
        paths = spec.teacher or [""] * len(spec.student)
        self.calls = [
            self._build(component, {**offered, **_shapes(s, t), "teacher_paths": spec.teacher, "teacher_path": path})
            for (s, t), path in zip(self._inputs(student, teacher), paths, strict=False)
        ]
        self.parts = nn.ModuleList(call for call in self.calls if isinstance(call, nn.Module))

    def forward(self, student: Features, teacher: Features, batch: Batch, epoch: float = torch.inf) -> Tensor:
        """The weighted loss; ``epoch`` decides how much of a warm-up is over."""
        extras = {need: getattr(batch, need) for need in self.extras}
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
        return self.weight(epoch) * torch.stack(values).sum()

    def weight(self, epoch: float) -> float:
        warmup = self.spec.warmup_epochs
        return self.spec.weight * (min(epoch / warmup, 1.0) if warmup else 1.0)

    def _inputs(self, student: Features, teacher: Features) -> list[tuple[Any, Any]]:
        s = [student[path] for path in self.spec.student]
        t = [teacher[path] for path in self.spec.teacher] if self.needs_teacher else [None] * len(s)
        if self.sees_all:
            return [(s, t)]
        if len(s) != len(t):
            raise RecipeError(
                f"loss '{self.key}' compares taps in pairs, "
                f"but the recipe gives {len(s)} of the student and {len(t)} of the teacher"
            )
        return list(zip(s, t, strict=True))

    def _build(self, component: Callable[..., Any], offered: dict[str, Any]) -> Callable[..., Tensor]:
        settings = options(component, self.spec)
        if inspect.isclass(component):
            return cast(nn.Module, component(**{need: offered[need] for need in supplied(component)}, **settings))
        return partial(component, **settings)


def needs_teacher(spec: Loss) -> bool:
    """Whether the loss of a recipe entry compares with a teacher."""
    component = losses.find(spec.name)
    return "teacher" in supplied(getattr(component, "forward", component))


def _shapes(student: Any, teacher: Any) -> dict[str, Any]:
    kind = "shapes" if isinstance(student, list) else "shape"
    return {f"student_{kind}": _sizes(student), f"teacher_{kind}": _sizes(teacher)}


def _sizes(features: Any) -> Any:
    """The shape of a feature map, those of several in a list, None where there is none."""
    if isinstance(features, list):
        return [_sizes(feature) for feature in features]
    return None if features is None else tuple(features.shape)
