"""Where a result comes from."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from distill.pipeline import provenance as origin
from distill.pipeline.provenance import provenance


def test_provenance_says_what_is_needed_to_repeat_a_run() -> None:
    facts = provenance()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["versions"]["python"] == sys.version.partition(" ")[0]
    assert facts["command"] == sys.argv
    assert facts["cpu"]
    assert set(facts["versions"]) >= {"distill", "torch", "torchvision", "pytorch-lightning"}


def test_the_commit_and_whether_files_differ_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    monkeypatch.setattr(origin, "ROOT", tmp_path)
    assert (provenance()["commit"], provenance()["dirty"]) == (None, None)
    git("init", "--quiet")
    assert provenance()["commit"] is None
    file = tmp_path / "file"
    file.write_text("a")
    git("add", "file")
    git("commit", "--quiet", "-m", "first")
    git("tag", "v1")
    assert (provenance()["commit"], provenance()["dirty"]) == (git("rev-parse", "HEAD").strip(), False)
    file.write_text("b")
    assert provenance()["dirty"] is True
