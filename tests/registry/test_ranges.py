"""Ranges stand in annotations; every number that a recipe may set has one."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill import registry
from distill.errors import RecipeError
from distill.recipe.loading import load
from distill.registry.ranges import Range
from distill.registry.signatures import Setting, described
from students import student

KINDS = (registry.loss, registry.hook, registry.codec, registry.data, registry.task, registry.exporter, student)
SETTINGS = [
    pytest.param(setting, id=f"{kind.decorator}-{name}-{setting.name}")
    for kind in KINDS
    for name in kind.names()
    for setting in kind.signature(name).settings
]


def ranges(hint: Any) -> Iterator[Range]:
    """Every range in an annotation."""
    if get_origin(hint) is Annotated:
        yield from (note for note in get_args(hint)[1:] if isinstance(note, Range))
    for inner in get_args(hint):
        yield from ranges(inner)


def is_number(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        return is_number(get_args(hint)[0])
    return hint in (int, float) or any(map(is_number, get_args(hint) if type(None) in get_args(hint) else ()))


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_number_has_a_range_that_its_default_is_in(setting: Setting) -> None:
    found = list(ranges(setting.hint))
    assert found or not is_number(setting.hint)
    if isinstance(setting.default, int | float):
        assert all(setting.default in one for one in found)


@given(st.floats(), st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_a_range_holds_what_its_words_say(value: float, low: float, high: float) -> None:
    assert (value in Range(at_least=low, below=high)) == (math.isfinite(value) and low <= value < high)
    assert (value in Range(above=low, at_most=high)) == (math.isfinite(value) and low < value <= high)


def test_ranges_are_shown() -> None:
    assert str(Range(above=0, at_most=1)) == "above 0 and at most 1"
    hint = Annotated[float, Range(at_least=0, below=1)]
    assert described(Setting("momentum", hint, 0.5)) == "momentum: float = 0.5 (at least 0 and below 1)"
    hint = Annotated[int, Range(at_least=1)] | None
    assert described(Setting("limit", hint, None)) == "limit: int at least 1 | null = null"


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        (
            "stages.distill.losses.kd.temperature=0",
            "kd.temperature: temperature is 0.0, but must be at least 0.001",
        ),
        ("stages.distill.losses.kd.temperature=-4", "temperature is -4.0"),
        ("stages.distill.losses.kd.temperature=1e-30", "temperature is 1e-30"),
        ("stages.distill.losses.kd.temperature=.nan", "temperature is nan, but must be finite"),
        ("task.label_smoothing=1", "at task.label_smoothing: label_smoothing is 1.0"),
        ("data.batch_size=0", "at data.batch_size: batch_size is 0"),
        ("data.val=1", "at data.val: val is 1.0"),
        ("student.width=1e6", "at student.width: width is 1000000.0"),
        ("compress.svd.max_error=2", "at compress.svd.max_error: max_error is 2.0"),
        ("teacher.num_classes=0", "at teacher.num_classes: num_classes is 0"),
    ],
)
def test_a_recipe_is_held_to_them(override: str, complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        load("smoke", [override])
