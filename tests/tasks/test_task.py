"""What a task decides for everybody else: which of two values is better, what a hook may lose, how outputs agree."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection

from distill.batch import Batch
from distill.data import DataInfo
from distill.errors import RecipeError
from distill.measure.evaluation import evaluate, numbers
from distill.tasks import Task
from tests.nets import TEN_CLASSES

VALUES = st.floats(0.01, 1e6)


class Distance(Task):
    """Less is better, in pixels."""

    monitor, mode, units = "error", "min", {"error": "px"}

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return (output - batch.labels).abs().mean()

    def metrics(self) -> MetricCollection:
        return MetricCollection({"error": MeanMetric()})

    def update(self, metrics: MetricCollection, output: Tensor, batch: Batch) -> None:
        metrics.update((output - batch.labels).abs())


class Share(Distance):
    """More is better, a fraction."""

    monitor, mode, units = "share", "max", {"share": "%"}


def batch(size: int = 4) -> Batch:
    return Batch(torch.zeros(size, 1, 2, 2), torch.arange(size)[:, None].float(), torch.arange(size))


@given(reference=VALUES, part=st.floats(-0.9, 5))
def test_a_drop_of_an_unbounded_metric_is_a_part_of_its_value_before(reference: float, part: float) -> None:
    task = Distance(TEN_CLASSES)
    value = reference * (1 + part)
    drop = task.quality(reference, reference) - task.quality(value, reference)
    assert drop == pytest.approx(part, abs=1e-6)


@given(value=st.floats(0, 1), reference=st.floats(0, 1))
def test_a_drop_of_a_fraction_is_in_points(value: float, reference: float) -> None:
    task = Share(TEN_CLASSES)
    assert task.quality(reference, 1.0) - task.quality(value, 1.0) == pytest.approx(reference - value)


@given(value=VALUES, reference=VALUES)
def test_quality_and_direction_agree(value: float, reference: float) -> None:
    for task in (Distance(TEN_CLASSES), Share(TEN_CLASSES)):
        found = task.quality(value, reference) >= task.quality(reference, reference)
        assert task.no_worse(value, reference) == found


def test_nan_is_worse_than_anything() -> None:
    assert not Distance(TEN_CLASSES).no_worse(float("nan"), 1.0)
    assert not Share(TEN_CLASSES).no_worse(float("nan"), 0.0)


def test_agreement_falls_with_the_error() -> None:
    task, reference = Distance(TEN_CLASSES), torch.tensor([[1.0, -3.0], [2.0, 2.0]])
    assert task.agreement(reference, reference) == 1.0
    assert task.agreement(reference * 1.1, reference) == pytest.approx(0.9)
    assert task.agreement(-9 * reference, reference) == 0.0
    assert task.agreement(torch.zeros(2, 2), torch.zeros(2, 2)) == 1.0


def test_several_terms_keep_their_names_and_are_added() -> None:
    class Named(Distance):
        def loss(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
            return {"near": output.mean(), "far": 2 * output.mean()}

    task = Named(TEN_CLASSES)
    assert list(task.terms(torch.ones(4, 1), batch())) == ["task_near", "task_far"]
    assert float(task.total(torch.ones(4, 1), batch())) == 3.0


def test_a_loss_that_is_no_number_is_refused() -> None:
    class Vector(Distance):
        def loss(self, output: Tensor, batch: Batch) -> Tensor:
            return (output - batch.labels).abs()

    with pytest.raises(RecipeError, match=r"Vector.loss: 'task' is \(4, 1\), but a loss is one number"):
        Vector(TEN_CLASSES).terms(torch.ones(4, 1), batch())


@pytest.mark.parametrize("output", [torch.zeros(3, 2), torch.zeros(4), [torch.zeros(4, 1)]])
def test_an_output_is_one_tensor_with_a_row_for_each_image(output: Tensor) -> None:
    with pytest.raises(RecipeError, match="an output is"):
        Distance(TEN_CLASSES).check(output, batch())


def test_networks_are_scored_through_the_task() -> None:
    batches = [batch(4), batch(2)]
    found = evaluate({"off": lambda inputs: torch.zeros(len(inputs), 1)}, batches, Distance(TEN_CLASSES))
    assert found == {"off": {"error": pytest.approx((0 + 1 + 2 + 3 + 0 + 1) / 6)}}
    assert evaluate({"none": lambda inputs: inputs}, [], Distance(TEN_CLASSES)) == {"none": {}}


def test_vectors_are_no_metrics_of_the_report() -> None:
    assert numbers({"map": torch.tensor(0.5), "map_per_class": torch.ones(3), "count": 7}) == {"map": 0.5, "count": 7.0}


def test_a_task_without_classes_needs_none() -> None:
    assert Distance(DataInfo(1, (4, 4), (0.5,), (0.5,))).network_arguments() == {}


def test_a_small_image_is_drawn_large_enough_to_see() -> None:
    drawn = Distance(TEN_CLASSES).draw(Image.new("L", (16, 8), 200), {})
    assert (drawn.width / 16, drawn.height / 8) == (14, 14)
    assert drawn.getcolors() == [(14 * 14 * 16 * 8, (200, 200, 200))]


def test_outputs_are_compared_with_those_of_the_reference_alone() -> None:
    """A task of one line says how near networks are to the teacher; the teacher itself has no such number."""

    class Compared(Distance):
        def fidelity(self) -> MetricCollection:
            return MetricCollection({"apart": MeanMetric()})

        def compare(self, metrics: MetricCollection, output: Tensor, reference: Tensor) -> None:
            metrics.update((output - reference).abs())

    networks = {"teacher": lambda x: 2 * x, "student": lambda x: 3 * x}
    batches = [
        Batch(torch.full((size, 1), value), torch.zeros(size, 1), torch.arange(size))
        for size, value in ((3, 1.0), (1, 5.0))
    ]
    for task, expected in ((Compared(TEN_CLASSES), {"apart": (3 * 1 + 5) / 4}), (Distance(TEN_CLASSES), {})):
        found = evaluate(networks, batches, task, reference="teacher")
        assert found["teacher"] == {"error": 2 * (3 * 1 + 5) / 4}
        assert found["student"] == {"error": 3 * (3 * 1 + 5) / 4, **expected}
        assert evaluate(networks, batches, task)["student"].keys() == {"error"}
        assert evaluate({"student": networks["student"]}, batches, task, reference="teacher")["student"].keys() == {
            "error"
        }
