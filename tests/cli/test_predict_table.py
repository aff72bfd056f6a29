"""What `predict` prints for tasks that predict more than one number or text."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from distill.cli.commands import predict
from distill.cli.main import main

OBJECTS = [{"class": "bag", "score": 0.9}, {"class": "coat", "score": 0.8}, {"class": "bag", "score": 0.7}]
AREAS = {"sky": 0.5, "road": 0.25, "[b]car": 0.15, "tree": 0.1}


@pytest.mark.parametrize(
    ("prediction", "shown"),
    [
        ({"objects": OBJECTS}, "objects|2 bag, 1 coat"),
        ({"objects": []}, "objects|none"),
        ({"areas": AREAS, "size": [8, 8], "runs": [[0, 64]]}, "areas|sky 50.0 %, road 25.0 %, [b]car 15.0 %"),
        ({"class": "bag", "probability": 0.5, "top": OBJECTS}, "class|probability|bag|0.5000"),
    ],
)
def test_each_task_has_something_to_show(
    prediction: dict[str, Any],
    shown: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    predictor = SimpleNamespace(info=SimpleNamespace(images=1), predict=lambda pictures: [prediction] * len(pictures))
    monkeypatch.setattr(predict, "_predictor", lambda path, allow: predictor)
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "student.safetensors", "a.png"]) == 0
    output = capsys.readouterr().out
    assert all(part in output for part in shown.split("|"))
