"""Blended images and their labels."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distill.batch import Batch
from distill.errors import RecipeError
from distill.recipe.schema import Mix, Stage
from distill.tasks.classification import Classification
from distill.training.mixing import Mixing
from tests.nets import TEN_CLASSES
from tests.training.test_distiller import distiller, term, trained

TASK = Classification(TEN_CLASSES)


def batch() -> Batch:
    """Constant images: the value of a pixel says which image it comes from."""
    values = torch.arange(6.0)
    return Batch(values[:, None, None, None].expand(6, 1, 8, 8).contiguous(), torch.arange(6), torch.arange(6), view=0)


@pytest.mark.parametrize("mix", [Mix(mixup=1.0), Mix(cutmix=1.0), Mix(mixup=0.5, cutmix=1.0)])
def test_labels_say_how_much_of_each_image_there_is(mix: Mix) -> None:
    torch.manual_seed(0)
    for _ in range(10):
        mixed = Mixing(mix, TASK, [])(batch())
        torch.testing.assert_close(mixed.labels.sum(1), torch.ones(6))
        expected = mixed.labels[:, :6] @ torch.arange(6.0)
        torch.testing.assert_close(mixed.inputs.mean((1, 2, 3)), expected)
        assert mixed.view is None


def test_images_alone_are_mixed_where_no_labels_are_read() -> None:
    class Unlabelled(Classification):
        mixes = "images"

    torch.manual_seed(0)
    task = Unlabelled(TEN_CLASSES)
    mixed = Mixing(Mix(mixup=1.0), task, [])(batch()._replace(labels=None))
    assert mixed.labels is None
    means = mixed.inputs.mean((1, 2, 3))
    assert not torch.equal(means, means.round())
    assert means.mean() == pytest.approx(2.5)


def test_the_loss_of_mixed_labels_is_the_mixture_of_losses() -> None:
    logits, one, other = torch.randn(4, 10), torch.randint(10, (4,)), torch.randint(10, (4,))
    soft = 0.3 * torch.eye(10)[one] + 0.7 * torch.eye(10)[other]
    first, second = (TASK.loss(logits, replace_labels(labels)) for labels in (one, other))
    torch.testing.assert_close(TASK.loss(logits, replace_labels(soft)), 0.3 * first + 0.7 * second)


def replace_labels(labels: torch.Tensor) -> Batch:
    return Batch(torch.zeros(4, 1, 8, 8), labels, torch.arange(4))


def test_a_stage_mixes_and_repeats_itself(tmp_path: Path) -> None:
    kd = {"kd": term("kd", temperature=4.0, student=[""], teacher=[""])}
    curves = [trained(Stage(epochs=2, losses=kd, mix=Mix(mixup=0.2)), tmp_path / name)[1] for name in ("a", "b")]
    assert curves[0] == curves[1]
    assert curves[0] != trained(Stage(epochs=2, losses=kd), tmp_path / "c")[1]


@pytest.mark.parametrize("name", ["dkd", "crd"])
def test_losses_that_read_single_labels_are_refused(name: str) -> None:
    losses = {name: term(name, student=["head" if name == "crd" else ""], teacher=["head" if name == "crd" else ""])}
    with pytest.raises(RecipeError, match=f"loss '{name}' reads the (labels|sample) of one image, but mix blends"):
        distiller(Stage(epochs=1, losses=losses, mix=Mix(cutmix=1.0)))


def test_a_task_without_class_labels_is_refused() -> None:
    class Other(Classification):
        mixes = None

    with pytest.raises(RecipeError, match="mix blends images and classes"):
        Mixing(Mix(mixup=0.2), Other(replace(TEN_CLASSES)), [])


def test_a_mix_of_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match="neither mixup nor cutmix"):
        Mix()
