"""What needs no network imports none: torch, Lightning, torchvision and NumPy take seconds."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "pytorch_lightning", "lightning_fabric", "numpy", "onnxruntime", "optuna", "wandb")
PROGRAM = """
import json, sys
try:
    {call}
finally:
    sys.stderr.write("\\n" + json.dumps([name for name in {heavy} if name in sys.modules]))
"""


def imported_by(call: str) -> tuple[list[str], subprocess.CompletedProcess[str]]:
    """Which heavy modules a program has imported when it ends."""
    program = PROGRAM.format(call=call, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return json.loads(done.stderr.splitlines()[-1]), done


@pytest.mark.parametrize(
    "call",
    [
        "import distill",
        "import students",
        "from distill.cli.train import train; train([])",
        "from distill.cli.train import train; train(['--help'])",
        "from distill.cli.train import train; train(['recipe=smok'])",
        "from distill.cli.train import train; train(['recipe=smoke', 'student.name=shufflenet_v3'])",
        "from distill.cli.train import train; train(['recipe=smoke', 'stages.distill.losses.kd.temprature=1'])",
        "from distill.cli.train import train; train(['recipe=smoke', 'trainer.precison=16'])",
        "from distill.cli.train import train; train(['recipe=smoke', '+compress.prun={}'])",
        "from distill.cli.main import main; main(['--help'])",
        "from distill.cli.main import main; main(['show', 'recipe=smoke', 'student.name=resnet18'])",
        *(
            f"from distill.cli.main import main; main(['list', '{kind}'])"
            for kind in ("recipes", "losses", "students", "hooks", "codecs", "tasks", "data", "exports")
        ),
        *(
            f"from distill.cli.main import main; main(['{command}', '--help'])"
            for command in ("evaluate", "inspect", "export", "bench", "predict", "plan", "sweep", "cache")
        ),
    ],
)
def test_imports_nothing_heavy(call: str) -> None:
    imported, done = imported_by(call)
    assert imported == [], done.stderr
    assert "Traceback" not in done.stderr.replace("SystemExit", "") or "SystemExit" in done.stderr


def test_a_test_that_can_fail() -> None:
    assert "numpy" in imported_by("import numpy")[0]
