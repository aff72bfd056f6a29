"""A step is done again after the code of its own author's components has changed, and not after anything else has."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import distill
from distill.pipeline.experiment import prepared
from distill.registry.outside_code import outside_code
from distill.training.cache._identity import fingerprint

MODULES = {
    "own_losses.py": "import json\nfrom own_helpers import power\nfrom own_package import settings\n"
    "def mine(student, teacher):\n    return (student - teacher).abs().pow(power).mean()\n",
    "own_helpers.py": "import own_losses  # in a circle\npower = 2\n",
    "own_package/__init__.py": "",
    "own_package/settings.py": "from . import deep\nfrom .deep import value\n",
    "own_package/deep.py": "value = 1\n",
    "own_package/unused.py": "value = 1\n",
    "own_nets.py": "from torch import nn\nclass Net(nn.Flatten):\n    pass\n",
}
SECTION = {"losses": [{"name": "own_losses:mine"}, {"name": "kd"}]}
RECIPE = ["teacher={name: resnet20, epochs: 1}", "compress={}", "export={}", "tracking.mode=disabled"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in MODULES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)
    importlib.invalidate_caches()
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("own_"):
            del sys.modules[name]


def test_a_module_counts_with_what_it_imports_of_the_same_author(folder: Path) -> None:
    expected = {"own_losses", "own_helpers", "own_package", "own_package.settings", "own_package.deep"}
    assert set(outside_code(SECTION)) == expected


@pytest.mark.parametrize("name", MODULES)
def test_an_edit_of_any_of_them_is_noticed(folder: Path, name: str) -> None:
    before = outside_code(SECTION)
    with (folder / name).open("a") as file:
        file.write("# edited\n")
    assert (outside_code(SECTION) == before) == (name in ("own_package/unused.py", "own_nets.py"))


def test_of_an_installed_library_the_named_file_counts() -> None:
    assert set(outside_code({"name": "torchvision.models.resnet:resnet18"})) == {"torchvision.models.resnet"}


def test_components_of_this_package_have_no_code_of_their_own() -> None:
    assert outside_code({"name": "kd", "nested": [{"name": "svd"}]}) == {}


def test_a_stage_with_an_edited_loss_is_another_step_and_the_teacher_is_the_same(folder: Path) -> None:
    def keys() -> dict[str, str]:
        stages = "stages={only: {epochs: 1, losses: {mine: {name: 'own_losses:mine'}}}}"
        line = prepared(distill.load_recipe("smoke", [*RECIPE, stages]))[2]
        return {step.name: step.key for step in (*line.teachers.values(), *line.stages.values())}

    before = keys()
    assert keys() == before
    (folder / "own_helpers.py").write_text("power = 4\n")
    after = keys()
    assert after["teacher"] == before["teacher"]
    assert after["student/only"] != before["student/only"]


def test_outputs_of_a_network_with_edited_code_are_not_taken_from_a_cache(folder: Path) -> None:
    net = importlib.import_module("own_nets").Net()
    before = fingerprint(net)
    assert fingerprint(importlib.import_module("own_nets").Net()) == before
    with (folder / "own_nets.py").open("a") as file:
        file.write("    # edited\n")
    assert fingerprint(net) != before
