"""Every code block of the documentation works. The word behind a block's language says how it is tested:

* ``yaml recipe`` is a whole recipe, ``yaml sections`` replaces sections of ``smoke``, ``yaml compression`` is for the
  command ``compress``: all load.
* ``python run`` runs; ``python file=PATH`` is a file that later blocks of the same document may import.
* ``sh check``: the arguments of ``train.py`` and ``python -m distill`` are parsed, recipes and overrides loaded.
* ``elsewhere`` needs a network, an account, hours or files of the reader's; ``text`` is output.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from distill.cli import main as cli
from distill.recipe.loading import load, load_compression

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
KINDS = {
    "yaml": ("recipe", "sections", "compression"),
    "python": ("run", "file=", "elsewhere"),
    "sh": ("check", "elsewhere"),
    "text": ("",),
    "cpp": ("",),
}


class Block(NamedTuple):
    document: str
    line: int
    language: str
    kind: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.document}:{self.line}"


def blocks(path: Path) -> Iterator[Block]:
    lines = path.read_text().splitlines()
    start = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        language, _, kind = lines[start].removeprefix("```").partition(" ")
        text = "\n".join(lines[start + 1 : number]) + "\n"
        yield Block(path.relative_to(ROOT).as_posix(), start + 1, language, kind, text)
        start = None


BLOCKS = [block for path in DOCUMENTS for block in blocks(path)]


def chosen(language: str, kind: str) -> list[object]:
    some = [block for block in BLOCKS if block.language == language and block.kind.startswith(kind)]
    return [pytest.param(block, id=block.name) for block in some]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_block_says_how_it_is_tested(path: Path) -> None:
    unknown = [b.name for b in blocks(path) if not b.kind.startswith(KINDS.get(b.language, ("?",)))]
    assert unknown == []
    prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"\n\n    \S.*", prose) == [], "indented code is not tested: fence it"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """An empty folder with the files that the block's document shows."""
    document = request.getfixturevalue("block").document
    for block in BLOCKS:
        if block.document == document and block.kind.startswith("file="):
            file = tmp_path / block.kind.removeprefix("file=")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for module in [name for name in sys.modules if name.startswith("my_package")]:  # of another document
        monkeypatch.delitem(sys.modules, module)
    return tmp_path


@pytest.mark.parametrize("block", chosen("yaml", "recipe"))
def test_recipes_load(block: Block, folder: Path) -> None:
    (folder / "own.yaml").write_text(block.text)
    assert load("own.yaml").stages


@pytest.mark.parametrize("block", chosen("yaml", "sections"))
def test_sections_load(block: Block, folder: Path) -> None:
    sections = yaml.safe_load(block.text)
    (folder / "own.yaml").write_text(yaml.safe_dump({"base": "smoke", **sections}, sort_keys=False))
    assert load("own.yaml").stages


@pytest.mark.parametrize("block", chosen("yaml", "compression"))
def test_compressions_load(block: Block, folder: Path) -> None:
    (folder / "own.yaml").write_text(block.text)
    assert load_compression("own.yaml").compress


@pytest.mark.parametrize("block", chosen("sh", "check"))
def test_commands_are_understood(block: Block, folder: Path) -> None:
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:2] == ["python", "train.py"]:
            recipes = [word.removeprefix("recipe=") for word in words[2:] if word.startswith("recipe=")]
            overrides = [word for word in words[2:] if "=" in word and not word.startswith(("recipe=", "--"))]
            if recipes and not recipes[0].startswith("my_own"):
                load(recipes[0], overrides)
        elif words[:3] == ["python", "-m", "distill"]:
            cli.parser(cli.commands(), words[3]).parse_known_args(words[3:])
        else:
            assert not words, f"a checked command is train.py or python -m distill, not: {line}"


@pytest.mark.parametrize("block", chosen("python", "run"))
def test_python_runs(block: Block, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", block.text], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
