"""An artifact on disk is whole, the same as in memory, and never runs or accepts what it should not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from distill.artifact import Artifact, Plan, load, open_artifact, store
from distill.artifact.step import Step
from distill.artifact.storage import Record, Stored, to_record
from distill.compress.encode import encode
from distill.compress.low_rank.svd import svd
from distill.compress.quantization._quantized import Quantized
from distill.compress.quantization.quantize import quantize
from distill.container import file_format
from distill.errors import ArtifactError, DistillError
from distill.models.surgery import deployable
from tests.compress import nets
from tests.compress.nets import ALLOW, ENTRY

STEP = Step("student", 100, 200, 300, {"val/accuracy": 0.9}, {"batch1": 0.3}, 1.5)
ABOUT = {"input": {"channels": 1, "mean": [0.5]}, "classes": ["zero", "eins", "zwö"]}


def plain() -> Artifact:
    base = nets.artifact()
    return Artifact(base.model, history=(STEP,), network=ENTRY, about=ABOUT)


def encoded() -> Artifact:
    return encode(quantize(svd(plain(), nets.anything, nets.calibration(), max_error=0.6)))


MAKE = {"plain": plain, "encoded": encoded}
CONTENT = {kind: make().to_bytes() for kind, make in MAKE.items()}
every_kind = pytest.mark.parametrize("kind", list(CONTENT))


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "student.safetensors"
        path.write_bytes(content)
        return path

    return write


@every_kind
def test_it_comes_back_as_it_was(kind: str, file: Callable[[bytes], Path]) -> None:
    saved, loaded = MAKE[kind](), open_artifact(file(CONTENT[kind]), allow=ALLOW)
    assert (loaded.network, loaded.about, loaded.history) == (ENTRY, ABOUT, (STEP,))
    assert loaded.plans == saved.plans
    assert loaded.stored.keys() == saved.stored.keys()
    assert loaded.to_bytes() == CONTENT[kind]
    state, expected = loaded.model.state_dict(), saved.model.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert not loaded.model.training
    assert loaded.model.tied.weight is loaded.model.tied_too.weight
    assert torch.equal(loaded.model(nets.images()), saved.model(nets.images()))


def test_half_precision_survives(file: Callable[[bytes], Path]) -> None:
    artifact = Artifact(nn.Linear(4, 4).half(), network={"name": "tests.artifact.test_artifact:half"})
    assert load(file(artifact.to_bytes()), allow=["tests.artifact.test_artifact"]).weight.dtype == torch.float16


def half() -> nn.Module:
    return nn.Linear(4, 4).half()


def test_save_says_what_it_wrote(tmp_path: Path) -> None:
    for artifact in (plain(), encoded()):
        size = artifact.save(tmp_path / "new" / "student.safetensors")
        assert size == artifact.nbytes() == (tmp_path / "new" / "student.safetensors").stat().st_size
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["student.safetensors"]


def test_the_same_artifact_gives_the_same_bytes() -> None:
    assert all(MAKE[kind]().to_bytes() == content for kind, content in CONTENT.items())


def test_tensors_can_be_read_by_name_without_this_program(file: Callable[[bytes], Path]) -> None:
    artifact = quantize(plain(), layers=["head"], symmetric=True)
    path = file(artifact.to_bytes())
    tensors = load_file(path)
    assert torch.equal(tensors["stem.weight"], artifact.model.stem.weight)
    codes, scales = tensors["head.weight/codes"], tensors["head.weight/scales"]
    assert torch.equal(codes.float() * scales.float()[:, None], artifact.model.head.weight)
    assert "tied_too.weight" not in tensors
    with safe_open(path, "pt") as opened:
        head = json.loads(opened.metadata()["distill"])
    assert head["format"] == 2
    assert head["network"] == ENTRY
    assert head["forms"] == [{"settings": {"form": "quantized", "axis": 0, "bits": 8}, "of": ["head.weight"]}]


def test_an_encoded_file_has_little_beside_its_tensors() -> None:
    artifact = encode(quantize(nets.artifact()))
    state = artifact.model.state_dict()
    payload = sum(form.nbytes() for form in artifact.stored.values())
    payload += sum(t.nbytes for name, t in state.items() if name not in artifact.stored and name != "tied_too.weight")
    assert artifact.nbytes() - payload < 1000  # 22 tensors; names and shapes take twice that if written out


@every_kind
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_noticed(kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = bytearray(CONTENT[kind])
    header = 8 + int.from_bytes(content[:8], "little")
    at = data.draw(st.one_of(st.integers(0, header + 8), st.integers(0, len(content) - 1)), "position")
    content[at] ^= data.draw(st.integers(1, 255), "change")
    with pytest.raises(ArtifactError, match="is truncated, damaged or|damaged$|altered|newer"):
        file_format.decode(bytes(content), "student.safetensors")


def test_every_byte_of_the_header_counts() -> None:
    content = CONTENT["encoded"]
    for at in range(8 + int.from_bytes(content[:8], "little")):
        for value in (content[at] ^ 1, ord(" "), ord("0"), ord("9")):
            changed = content[:at] + bytes([value]) + content[at + 1 :]
            if changed != content:
                with pytest.raises(ArtifactError):
                    file_format.decode(changed, "student.safetensors")


def test_the_damaged_tensor_is_named() -> None:
    weight = plain().model.kernel.weight.detach().numpy().tobytes()
    content = CONTENT["plain"].replace(weight, weight[:40] + b"\0\0\0\0" + weight[44:])
    with pytest.raises(
        ArtifactError, match=r"student.safetensors has been altered: tensor 'kernel\.weight' is damaged"
    ):
        file_format.decode(content, "student.safetensors")


@every_kind
@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 200, 0.5, -100, -1])
def test_a_truncated_file_is_refused(kind: str, length: float, file: Callable[[bytes], Path]) -> None:
    end = int(length * len(CONTENT[kind])) if length == 0.5 else int(length)
    with pytest.raises(ArtifactError, match=r"student\.safetensors is truncated, damaged or not a safetensors file"):
        open_artifact(file(CONTENT[kind][:end]), allow=ALLOW)


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(ArtifactError, match="truncated, damaged"):
        file_format.decode(CONTENT["plain"] + b"\0", "student.safetensors")


def test_a_newer_format_is_refused(file: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_format, "FORMAT", 3)
    path = file(plain().to_bytes())
    monkeypatch.undo()
    with pytest.raises(ArtifactError, match=r"has format 3, newer than this program's 2: upgrade distill"):
        open_artifact(path, allow=ALLOW)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"cannot read .*nowhere\.safetensors: No such file"):
        open_artifact(tmp_path / "nowhere.safetensors")
    with pytest.raises(ArtifactError, match="cannot read .*: Is a directory"):
        open_artifact(tmp_path)
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ArtifactError, match="is a safetensors file, but not an artifact"):
        open_artifact(tmp_path / "other.safetensors")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        open_artifact(tmp_path / "photo.png")


def test_code_from_outside_needs_leave(file: Callable[[bytes], Path]) -> None:
    with pytest.raises(ArtifactError, match=r"pass allow=\['tests\.compress\.nets'\]"):
        open_artifact(file(CONTENT["plain"]))


@pytest.mark.parametrize("where", ["plan", "form", "codec"])
def test_a_file_cannot_reach_outside_by_other_names(
    where: str, file: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = encode(quantize(plain()))
    outside = {"plan": {}, "form": {"form": "antigravity:Form"}, "codec": {"codec": "antigravity:Codec"}}[where]
    plans = (Plan("antigravity:apply", {}),) if where == "plan" else ()

    def record(form: Stored) -> Record:
        settings, parts = to_record(form)
        return settings | outside, parts

    monkeypatch.setattr("distill.artifact.artifact.to_record", record)
    content = Artifact(artifact.model, artifact.stored, network=ENTRY, plans=plans, encoded=True).to_bytes()
    with pytest.raises(ArtifactError, match=r"needs 'antigravity:\w+', code from outside.*allow=\['antigravity'\]"):
        open_artifact(file(content), allow=ALLOW)


def test_a_network_that_is_built_differently_now_is_refused(file: Callable[[bytes], Path]) -> None:
    other = {"name": f"{__name__}:half"}
    for artifact in (plain(), quantize(plain()), encoded()):
        for network, why in (({**ENTRY, "width": 8}, "tensor .* in the file and .* in the network"), (other, "")):
            changed = Artifact(artifact.model, artifact.stored, network=network, plans=artifact.plans)
            with pytest.raises(ArtifactError, match=f"does not fit the network it names, as that is built now: {why}"):
                open_artifact(file(changed.to_bytes()), allow=[*ALLOW, __name__])


def test_without_its_network_it_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="could never be loaded: the artifact lacks `network`"):
        Artifact(nn.Linear(2, 2)).save(tmp_path / "student.safetensors")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "student.safetensors"
    plain().save(path)

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as opened:
            opened.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DistillError, match="cannot write .*: No space left on device"):
        encoded().save(path)
    monkeypatch.undo()
    assert path.read_bytes() == CONTENT["plain"]
    assert list(tmp_path.iterdir()) == [path]


def test_storing_changes_a_copy() -> None:
    artifact = plain()
    weight = artifact.model.head.weight.detach().clone()
    done = store(artifact, {"head.weight": Quantized.fit(weight, 3)})
    assert torch.equal(artifact.model.head.weight, weight)
    assert torch.equal(done.model.head.weight, done.stored["head.weight"].decode())


def test_surgery_drops_the_forms_of_what_it_replaced() -> None:
    quantized = quantize(plain())
    done = svd(quantized, nets.anything, nets.calibration(), max_error=0.6, layers=["point", "head"])
    assert quantized.stored.keys() - done.stored.keys() == {"point.weight", "head.weight"}
    retrained = quantized.copy_model()
    retrained.stem.weight.data += 1
    assert quantized.stored.keys() - quantized.with_model(retrained).stored.keys() == {"stem.weight"}


def test_memory_layout_does_not_matter(file: Callable[[bytes], Path]) -> None:
    model = nets.artifact().model.to(memory_format=torch.channels_last)
    artifact = Artifact(model, network=ENTRY)
    assert artifact.to_bytes() == nets.artifact().to_bytes()
    assert artifact.copy_model().kernel.weight.is_contiguous()


class Factors(nn.Module):
    """Keeps something else than it computes with."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Parameter(torch.randn(4, 4))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ (2 * self.core).T

    def deploy(self) -> nn.Module:
        plain = nn.Linear(4, 4, bias=False)
        plain.weight.data = 2 * self.core.detach()
        return plain


def test_deployable_replaces_every_layer_that_offers_another_form() -> None:
    twice = Factors()
    model = nn.Sequential(twice, nn.Sequential(nn.ReLU(), Factors()), twice)
    rows = torch.randn(3, 4)
    small = deployable(model)
    assert [type(m) for m in small.modules()] == [nn.Sequential, nn.Linear, nn.Sequential, nn.ReLU, nn.Linear]
    assert small[0] is small[2]
    torch.testing.assert_close(small(rows), model(rows))
    assert isinstance(model[0], Factors)
    assert isinstance(deployable(twice), nn.Linear)
