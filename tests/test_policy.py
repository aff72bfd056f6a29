"""House rules that a review would otherwise repeat."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def body(function: ast.FunctionDef) -> ast.stmt:
    """The first statement after the docstring."""
    return function.body[1 if ast.get_docstring(function) and len(function.body) > 1 else 0]


MODULES = sorted(path for folder in ("distill", "students") for path in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
ROOMS = [ROOT / "students", *(ROOT / "distill" / room for room in ("losses", "compress", "codecs"))]
COMPONENTS = [p for p in MODULES if any(room in p.parents for room in ROOMS)]
TEXTBOOK = {"auto", "bitmap", "bitplane", "block", "coo", "delta", "packed", "permute", "run_length", "zigzag"}
"""Codecs that nobody is cited for."""
CITED = [p for p in COMPONENTS if not p.name.startswith("_") and p.stem not in TEXTBOOK]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_file_is_one_idea_in_fewer_than_300_lines(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "the first line says what the file is"
    assert text.count("\n") < 300


@pytest.mark.parametrize("path", TESTS, ids=name)
def test_a_file_of_tests_specifies_one_thing_in_fewer_than_300_lines(path: Path) -> None:
    assert path.read_text().count("\n") < 300


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_the_package_never_prints(path: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not any(isinstance(call, ast.Name) and call.id == "print" for call in calls)


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_functions_fit_on_a_screen(path: Path) -> None:
    functions = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)]
    assert [f.name for f in functions if (f.end_lineno or 0) - body(f).lineno > 40] == []


@pytest.mark.parametrize("path", CITED, ids=name)
def test_a_component_says_where_it_is_from(path: Path) -> None:
    source = ast.get_docstring(ast.parse(path.read_text())) or ""
    marks = ("arXiv", "IEEE", "RFC", "(19", "(20", "1952", "RepDistiller", "torchvision", "see `distill")
    assert any(mark in source for mark in marks), "name the paper, standard or library in the file's docstring"
