"""Artifacts of every family of torchvision's classifiers are read back, also of those whose builders read values."""

from pathlib import Path

import pytest
import torch

from distill.artifact import Artifact, open_artifact
from distill.models.build import build_network
from tests.families import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_saved_is_read(family: str, tmp_path: Path) -> None:
    entry = {"name": f"tests.families:{family}"}
    artifact = Artifact(build_network(entry, allow=["tests.families"]).eval(), network=entry)
    artifact.save(tmp_path / "student.safetensors")
    loaded = open_artifact(tmp_path / "student.safetensors", allow=["tests.families"]).model.state_dict()
    saved = artifact.model.state_dict()
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)
