"""What every loss must do, whoever wrote it."""

import inspect
from typing import Any, get_type_hints

import pytest
import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.losses import loss as losses
from distill.recipe.schema import Loss
from distill.registry import needs_teacher, schema
from distill.training.loss_terms import Term
from students import lccl_resnet20, ssd_miniature
from tests.nets import ConvNet

BATCH, CLASSES = 4, 10
LABELS = torch.tensor([0, 1, 2, 2])
MAPS = [(8, 6, 6), (8, 3, 3)]
DETECTION: dict[str, list[tuple[int, ...]]] = {
    "crosskd": [(4, 6, 6), (8, 3, 3), (8, 2, 2)],
    "detection_kd": [(3, 7), (4, 7)],
    "ld": [(5, 4, 7), (3, 7)],
}
"""Of losses that compare detectors: their maps, and parts of outputs."""
BOXES = [{"boxes": torch.tensor([[1.0, 1, 4, 4]]), "iscrowd": torch.zeros(1)}] * BATCH
"""Labels of losses that read boxes."""
MASKS = torch.randint(CLASSES, (BATCH, 6, 6), generator=torch.Generator().manual_seed(2))
"""Labels of losses that read masks."""

SETTINGS: dict[str, dict[str, Any]] = {
    "cirkd_memory": {"pixel_memory": 8, "region_memory": 4},
    "splitnet": {"groups": {"head": 2}},
}
"""Settings without a default, or too large for four samples."""

FLOW = [(2, 6, 6), (2, 3, 3)]
"""Of losses that compare flow."""

KEPT = ("network", "student_model", "layers")
"""Where losses keep the student, or layers of it, in a tuple: it is moved with the student, not with the loss."""

REGULARISED: dict[str, type[nn.Module]] = {"morphnet": nn.BatchNorm2d, "splitnet": nn.Linear}
"""Losses that look at the network itself, and the layers whose weights they change."""


def shapes(name: str) -> list[tuple[int, ...]]:
    """What a loss compares follows from its annotations: logits, one kind of map, or several maps at once."""
    if name in DETECTION:
        return DETECTION[name]
    component = losses.find(name)
    hint = get_type_hints(getattr(component, "forward", component))["student"]
    if name == "epe":
        return FLOW
    if name == "byot":  # its last tap is the network's own output
        return [*MAPS, (CLASSES,)]
    return [(CLASSES,)] if getattr(hint, "dim_str", "").startswith("batch classes") else MAPS


def features(name: str, *, seed: int, batch: int = BATCH) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"tap{i}": torch.randn(batch, *shape, generator=generator).requires_grad_(seed == 0)
        for i, shape in enumerate(shapes(name))
    }


def term(name: str, batch: int = BATCH) -> tuple[Term, dict[str, Tensor], dict[str, Tensor], Batch]:
    torch.manual_seed(0)
    student, teacher = features(name, seed=0, batch=batch), features(name, seed=1, batch=batch)
    spec = schema(losses.find(name), Loss)(name=name, student=list(student), **SETTINGS.get(name, {}))
    if needs_teacher(name):
        # ConvNet(width=2) has a batch norm and a classifier of 8 channels, as many as every tap has.
        paths = ["maps.0", "maps.1", "maps.2"] if name == "crosskd" else ["stage3.1", "stage3.2", "stage3"]
        paths = paths[: len(teacher)]
        spec.teacher, teacher = paths, dict(zip(paths, teacher.values()))
    labels = {"fgd": BOXES, "cirkd_memory": MASKS}.get(name, LABELS)
    inputs = Batch(torch.zeros(batch, 1, 8, 8), labels[:batch], torch.arange(batch))
    teacher_model = ssd_miniature(num_classes=2, width=1) if name == "crosskd" else ConvNet(width=2)
    student_model = lccl_resnet20() if name == "lccl" else ConvNet(width=2)
    networks = {"student_model": student_model, "teacher_model": teacher_model.eval()}
    injectable = {**networks, "train_labels": LABELS, "num_classes": CLASSES, "batch_size": batch}
    compute = Term(name, spec, student, teacher, injectable)
    for part in compute.parts:
        if hasattr(part, "prepare"):
            part.prepare([teacher[spec.teacher[0]].detach()])
    return compute, student, teacher, inputs


def taught(compute: Term, student: dict[str, Tensor]) -> list[Tensor]:
    """The taps that learn something, or the weights of a network that is only looked at.

    byot's deepest map and output teach the others; ld learns nothing of classes.
    """
    if compute.key == "l1":
        return [layer.weight for layer in compute.parts[0].layers]
    if compute.key == "lccl":
        return [norm.bias for norm in compute.parts[0].layers]
    if kind := REGULARISED.get(compute.key):
        (model,) = compute.parts[0].network
        return [layer.weight for layer in model.modules() if isinstance(layer, kind)]
    return list(student.values())[: {"byot": -2, "ld": 1}.get(compute.key)]


def with_student(compute: Term) -> nn.ModuleList:
    """The loss and what it keeps of the student."""
    kept = [one for part in compute.parts for name in KEPT for one in getattr(part, name, ()) if name in vars(part)]
    return nn.ModuleList([compute, nn.ModuleList(kept)])


@pytest.mark.parametrize("name", losses.names())
class TestEveryLoss:
    def test_is_a_finite_scalar_that_reaches_the_student(self, name: str) -> None:
        compute, student, teacher, batch = term(name)
        value = compute(student, teacher, batch)
        assert value.shape == ()
        assert value.isfinite()
        value.backward()
        assert all(f.grad is not None and f.grad.isfinite().all() and f.grad.any() for f in taught(compute, student))

    def test_never_sends_a_gradient_to_the_teacher(self, name: str) -> None:
        compute, student, teacher, batch = term(name)
        teacher = {path: feature.requires_grad_() for path, feature in teacher.items()}
        compute(student, {path: feature.detach() for path, feature in teacher.items()}, batch).backward()
        assert all(feature.grad is None for feature in teacher.values())

    def test_leaves_its_inputs_alone(self, name: str) -> None:
        compute, student, teacher, batch = term(name)
        before = [f.clone() for f in (*student.values(), *teacher.values())]
        compute(student, teacher, batch)
        assert all(map(torch.equal, before, (*student.values(), *teacher.values())))

    def test_survives_large_activations(self, name: str) -> None:
        compute, student, teacher, batch = term(name)
        scaled = [{k: 1e3 * v for k, v in f.items()} for f in (student, teacher)]
        value = compute(*scaled, batch)
        value.backward()
        assert value.isfinite()
        assert all(f.grad.isfinite().all() for f in taught(compute, student))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_is_close_to_full_precision_under_autocast(self, name: str, dtype: torch.dtype) -> None:
        compute, student, teacher, batch = term(name)
        torch.manual_seed(1)
        exact = compute(student, teacher, batch)
        compute, student, teacher, batch = term(name)
        torch.manual_seed(1)
        halved = [{k: v.to(dtype) for k, v in f.items()} for f in (student, teacher)]
        with torch.autocast("cpu", dtype):
            value = compute(*halved, batch)
        assert value.isfinite()
        torch.testing.assert_close(value.float(), exact, rtol=0.1, atol=0.02 * max(1, abs(exact.item())))

    @torch.no_grad()  # in which losses remember nothing
    def test_keeps_the_digits_of_double_precision(self, name: str) -> None:
        compute, student, teacher, batch = term(name)
        compute(student, teacher, batch)  # what some losses find out in their first step
        with_student(compute).double()
        student, teacher = ({k: v.double() for k, v in f.items()} for f in (student, teacher))
        batch = batch._replace(inputs=batch.inputs.double())
        values = []
        for change in (0, 1e-9):  # too small for a float32
            for learning in taught(compute, student):
                learning *= 1 + change * torch.randn_like(learning)
            torch.manual_seed(1)
            values.append(compute(student, teacher, batch))
        assert values[0].dtype == torch.float64
        assert values[0] != values[1]

    def test_survives_identical_images(self, name: str) -> None:
        compute, student, teacher, batch = term(name)
        same = [{k: v[:1].expand_as(v) for k, v in f.items()} for f in (student, teacher)]
        value = compute(*same, batch)
        value.backward()
        assert value.isfinite()
        assert all(f.grad.isfinite().all() for f in taught(compute, student))

    def test_a_batch_of_one_is_computed_or_refused_by_name(self, name: str) -> None:
        compute, student, teacher, batch = term(name, batch=1)
        try:
            assert compute.train()(student, teacher, batch).isfinite()
        except ValueError as error:
            refusal = str(error)
            assert "batch" in refusal or "more than 1 value per channel" in refusal

    def test_scales_with_its_weight(self, name: str) -> None:
        values = []
        for weight in (1, 3):
            compute, student, teacher, batch = term(name)
            compute.spec.weight *= weight
            torch.manual_seed(1)
            values.append(compute(student, teacher, batch))
        torch.testing.assert_close(values[1], 3 * values[0])

    def test_says_where_it_comes_from(self, name: str) -> None:
        source = inspect.getdoc(inspect.getmodule(losses.find(name)))
        assert any(mark in (source or "") for mark in ("arXiv:", "(20")), (
            "start the file with the paper: authors, title, arXiv id or venue and year, equation"
        )
