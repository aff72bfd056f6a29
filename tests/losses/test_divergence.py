"""Logits of dense outputs and in half precision: losses that compare class probabilities."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses.dist import stronger_teacher
from distill.losses.dkd import decoupled
from distill.losses.kd import soft_targets
from distill.losses.lskd import standardized_soft_targets
from distill.losses.mlld import multi_level
from distill.losses.tfkd import teacher_free
from distill.losses.wttm import transformed_teacher

Compute = Callable[[Tensor, Tensor, Tensor], Tensor]

LOSSES: dict[str, Compute] = {
    "kd": lambda student, teacher, labels: soft_targets(student, teacher),
    "lskd": lambda student, teacher, labels: standardized_soft_targets(student, teacher),
    "dkd": decoupled,
    "tfkd": lambda student, teacher, labels: teacher_free(student, labels),
    "dist": lambda student, teacher, labels: stronger_teacher(student, teacher),
}


def dense(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(2, 5, 4, 3, generator=generator) for _ in range(2))
    return student, teacher, torch.randint(5, (2, 4, 3), generator=generator)


@pytest.mark.parametrize("name", LOSSES)
def test_a_dense_output_counts_as_one_image_per_position(name: str) -> None:
    student, teacher, labels = dense()
    flat = [torch.stack([one[n, :, y, x] for n in range(2) for y in range(4) for x in range(3)]) for one in dense()[:2]]
    expected = LOSSES[name](*flat, labels.flatten())
    torch.testing.assert_close(LOSSES[name](student, teacher, labels), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_the_size_of_an_image_does_not_change_the_loss(name: str) -> None:
    repeated = [one.repeat(*[1] * (one.dim() - 2), 16, 16) for one in dense()]
    torch.testing.assert_close(LOSSES[name](*repeated), LOSSES[name](*dense()))


def test_kd_is_a_mean_over_pixels_of_torchs_divergence() -> None:
    student, teacher, _ = dense()
    points = F.kl_div((student / 4).log_softmax(1), (teacher / 4).softmax(1), reduction="none").sum(1)
    torch.testing.assert_close(soft_targets(student, teacher), 16 * points.mean())


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", [*LOSSES, "mlld"])
def test_bfloat16_logits_are_compared_in_full_precision(name: str, autocast: bool) -> None:
    """The only error left is that of the logits themselves."""
    losses = LOSSES | {"mlld": lambda student, teacher, labels: multi_level(student, teacher)}
    student, teacher, labels = (one[:, ..., 0, 0] for one in dense())
    halved = student.bfloat16(), teacher.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = losses[name](*halved, labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, losses[name](*(one.float() for one in halved), labels), rtol=1e-6, atol=1e-7)


def test_double_precision_stays() -> None:
    student, teacher, _ = dense()
    assert soft_targets(student.double(), teacher.double()).dtype == torch.float64


def test_mlld_refuses_a_dense_output() -> None:
    with pytest.raises(ValueError, match=r"not the \(4, 3\) positions of a dense output; use kd"):
        multi_level(*dense()[:2])


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("name", ["kd", "dkd", "dist", "wttm"])
def test_classes_that_the_teacher_masks_are_as_if_they_were_very_improbable(
    name: str, both: bool, autocast: bool
) -> None:
    losses = LOSSES | {"wttm": lambda student, teacher, labels: transformed_teacher(student, teacher)}
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, 10, generator=generator) for _ in range(2))
    labels = torch.arange(4)

    def value(masked: float) -> tuple[Tensor, Tensor]:
        own, other = student.clone(), teacher.clone()
        other[:, 7:] = masked
        if both:
            own[:, 7:] = masked
        own.requires_grad_()
        with torch.autocast("cpu", enabled=autocast):
            found = losses[name](own, other, labels)
        return found, torch.autograd.grad(found, own)[0]

    for found, expected in zip(value(-torch.inf), value(-1e4), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
