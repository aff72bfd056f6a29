"""Signatures read from source are those of the imported components."""

from pathlib import Path

import pytest
import torchvision

from distill import registry
from distill.recipe.checks import trainer_settings
from distill.registry import Registry, signatures, source
from students import student

KINDS = (registry.loss, registry.hook, registry.codec, registry.data, registry.task, registry.exporter, student)
COMPONENTS = [pytest.param(kind, name, id=f"{kind.decorator}-{name}") for kind in KINDS for name in kind.names()]


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_every_component_is_read_as_it_is(kind: Registry, name: str) -> None:
    assert source.signature(kind.modules[name], kind.decorator, name) == signatures.of(kind.find(name))


def test_torchvisions_networks_are_known_without_it() -> None:
    assert set(student.foreign()) == {
        name
        for kind in (torchvision.models, torchvision.models.segmentation, torchvision.models.optical_flow)
        for name in torchvision.models.list_models(module=kind)
    }


def test_lightnings_settings_are_known_without_it() -> None:
    import inspect

    import pytorch_lightning as pl

    assert trainer_settings() == tuple(inspect.signature(pl.Trainer).parameters)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package ``readable``, counted as one of this repository."""
    (tmp_path / "readable").mkdir()
    (tmp_path / "readable" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(source, "_OWN", ("readable",))
    source.source.cache_clear()
    return tmp_path / "readable"


@pytest.mark.parametrize(
    "text",
    [
        "@loss('x')\n@clever\ndef f(student, *, a: int = 1): ...",
        "from numpy import Base\n@loss('x')\nclass F(Base): ...",
        "@loss('x')\ndef f(student, *, a: int = made()): ...",
        "f = loss('x')(lambda student: student)",
        "def f(",
    ],
)
def test_what_is_not_understood_is_left_to_an_import(text: str, package: Path) -> None:
    (package / "clever.py").write_text(text)
    assert source.signature("readable.clever", "loss", "x") is None


def test_a_missing_annotation_is_made_up_for_by_the_default(package: Path) -> None:
    (package / "plain.py").write_text('"""A paper.\n\nMore."""\n@loss("x")\ndef f(student, *, a=2.0, b=None): ...\n')
    read = source.signature("readable.plain", "loss", "x")
    assert read is not None
    assert (read.settings[0].name, read.settings[0].hint, read.settings[0].default) == ("a", float, 2.0)
    assert read.summary == "A paper."
