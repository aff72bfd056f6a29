"""Nothing that a default run does opens a connection or asks a name server."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ADDRESS = re.compile(r"sin_addr=inet_addr\(\"([^\"]+)\"\)|inet_pton\(AF_INET6, \"([^\"]+)\"")
LINE = ("train.py", "recipe=smoke", "data.limit=60", "baseline=false")
GUARD = """
import socket, sys

def refuse(*words, **_):
    place = words[-1] if isinstance(words[-1], tuple) else words
    if str(place[0]) not in ("127.0.0.1", "::1", "localhost", "0.0.0.0", ""):
        sys.stderr.write(f"NETWORK {place}\\\\n")
        raise OSError("no network in this test")

def guarded(name, owner):
    real = getattr(owner, name)
    setattr(owner, name, lambda *words, **named: (refuse(*words), real(*words, **named))[1])

guarded("getaddrinfo", socket)
class Guarded(socket.socket):
    def connect(self, address):
        if self.family != socket.AF_UNIX:
            refuse(address)
        return super().connect(address)
socket.socket = Guarded
"""


def outside(trace: str) -> list[str]:
    """Addresses beyond this machine in the output of strace, name servers among them."""
    found = ["".join(match) for match in ADDRESS.findall(trace)]
    return [address for address in found if not re.match(r"127\.|::1$|0\.0\.0\.0$|::$", address)]


def traced(words: tuple[str, ...], folder: Path) -> list[str]:
    """Addresses that a Python program and its children connect or send to."""
    log = folder / "trace"
    home = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "ORT_DISABLE_TELEMETRY": "", "WANDB_MODE": ""}
    environment = {key: value for key, value in {**os.environ, **home}.items() if value}
    command = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(log), sys.executable]
    done = subprocess.run([*command, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return outside(log.read_text(errors="replace"))


def can_trace() -> bool:
    return bool(shutil.which("strace")) and not subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"]).returncode


@pytest.mark.skipif(not can_trace(), reason="strace, which sees native code too, is not there or not allowed")
class TestTraced:
    def test_a_run_talks_to_nobody(self, tmp_path: Path) -> None:
        assert traced((*LINE, f"output={tmp_path / 'runs'}"), tmp_path) == []

    def test_the_trace_sees_a_connection(self, tmp_path: Path) -> None:
        """To an address that is nobody's: RFC 5737."""
        program = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 53))"
        assert traced(("-c", program), tmp_path) == ["192.0.2.1"]


@pytest.mark.skipif(can_trace(), reason="strace sees more")
def test_pythons_sockets_are_left_alone(tmp_path: Path) -> None:
    """Where there is no strace, this is what can be seen."""
    (tmp_path / "sitecustomize.py").write_text(GUARD)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}
    ask = "import socket\ntry: socket.getaddrinfo('example.invalid', 80)\nexcept OSError: pass"
    seen = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=False)
    assert "NETWORK" in seen.stderr
    command = [sys.executable, *LINE, f"output={tmp_path / 'runs'}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "NETWORK" not in done.stderr


@pytest.mark.parametrize("first", ["distill", "distill.__main__", "distill.sweep", "distill.export.onnx_file"])
def test_telemetry_is_off_before_onnx_runtime_is_imported(first: str) -> None:
    program = f"import os, sys, {first}; assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'"
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=True)
