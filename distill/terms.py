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
    names. Any other sees one pair of taps; several pairs are summed.

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
        self.extras = [need for need in supplied(call) if need not in ("student", "teacher")]
        self.calls = [self._build(component, {**offered, **_shapes(s, t)}) for s, t in self._inputs(student, teacher)]
        self.parts = nn.ModuleList(call for call in self.calls if isinstance(call, nn.Module))

    def forward(self, student: Features, teacher: Features, batch: Batch, epoch: float = torch.inf) -> Tensor:
        """The weighted loss; ``epoch`` decides how much of a warm-up is over."""
        extras = {need: getattr(batch, need) for need in self.extras}
        values = []
        for call, (s, t) in zip(self.calls, self._inputs(student, teacher), strict=True):
            try:
                values.append(call(s, t, **extras))
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
        s, t = [student[path] for path in self.spec.student], [teacher[path] for path in self.spec.teacher]
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


def _shapes(student: Any, teacher: Any) -> dict[str, Any]:
    if isinstance(student, list):
        return {
            "student_shapes": [tuple(s.shape) for s in student],
            "teacher_shapes": [tuple(t.shape) for t in teacher],
        }
    return {"student_shape": tuple(student.shape), "teacher_shape": tuple(teacher.shape)}


def _sizes(features: Tensor | list[Tensor]) -> Any:
    return tuple(features.shape) if isinstance(features, Tensor) else [tuple(f.shape) for f in features]
