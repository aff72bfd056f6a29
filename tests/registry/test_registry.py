import pytest
import torch
from torch import Tensor

from distill.errors import RecipeError
from distill.losses import loss
from distill.recipe.schema import Loss
from distill.registry import did_you_mean, options, schema


def test_a_misspelt_name_gets_the_nearest_and_all_others() -> None:
    with pytest.raises(
        RecipeError, match=r"unknown loss 'fitnt'. Did you mean 'fitnet'\? There are: ab, at, byot, .*, vid"
    ):
        loss.find("fitnt")


def test_a_name_like_no_other_gets_no_guess() -> None:
    assert did_you_mean("zzz", ["at", "kd"]) == "'zzz'. There are: at, kd"
    many = [f"name{number}" for number in range(100)]
    assert did_you_mean("nam7", many, ["name7"]).count("'name7'") == 1


def test_code_from_outside_is_found_by_its_address() -> None:
    assert loss.find("torch.nn.functional:mse_loss") is torch.nn.functional.mse_loss


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("no_such_package.x:y", "cannot import 'no_such_package.x'"),
        ("math:no_such_thing", "module 'math' has no attribute 'no_such_thing'"),
    ],
)
def test_a_wrong_address_is_named(address: str, complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        loss.find(address)


def test_asking_for_what_is_not_offered_is_an_error_at_once() -> None:
    with pytest.raises(TypeError, match=r"asks for \['epoch'\], but may ask for"):

        @loss("late")
        def late(student: Tensor, teacher: Tensor, epoch: int) -> Tensor: ...


def test_two_components_cannot_share_a_name() -> None:
    with pytest.raises(ValueError, match="loss 'kd' exists already in distill.losses.kd"):
        loss("kd")(lambda student, teacher: student)


def test_the_signature_is_the_schema() -> None:
    component = loss.find("kd")
    spec = schema(component, Loss)(name="kd", temperature=2.0)
    assert options(component, spec) == {"temperature": 2.0}


def test_a_setting_may_not_hide_what_every_loss_has() -> None:
    def heavy(student: Tensor, teacher: Tensor, *, weight: float = 1.0) -> Tensor: ...

    with pytest.raises(TypeError, match=r"\['weight'\] already belong to every Loss"):
        schema(heavy, Loss)
