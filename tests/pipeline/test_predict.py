"""Predictions need a network's file and pictures, nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import distill
from distill.__main__ import main
from distill.artifact import Artifact
from distill.data import DataInfo
from distill.data.decoding import open_picture
from distill.data.image_inputs import batched_inputs, unlabelled_batches
from distill.data.picture_arrays import picture_files
from distill.data.preprocessing import Preprocessing, normalised
from distill.errors import ArtifactError, DataError, ExportError
from distill.models.build import build_network
from distill.pipeline.predict import side_by_side

INFO = DataInfo(
    channels=3,
    image_size=(32, 32),
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.3, 0.4),
    class_names=tuple("abcdefghij"),
    preprocessing={"mode": "RGB", "resize": 36, "crop": [32, 32]},
)


def artifact() -> Artifact:
    torch.manual_seed(0)
    entry = {"name": "mobilenet_v1", "num_classes": 10, "width": 0.25, "small_images": True, "channels": 3}
    about = {"task": {"name": "classification"}, "data": {"name": "image_folder"}, "info": INFO.to_json()}
    return Artifact(build_network(entry).eval(), network=entry, about=about)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Five pictures of several sizes, one in a folder of its own; and a file that is none."""
    generator = torch.Generator().manual_seed(1)
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for number in range(5):
        size = (40 + number, 50 - number)
        pixels = torch.randint(256, (*size, 3), generator=generator, dtype=torch.uint8)
        place = folder / "deep" if number == 4 else folder
        Image.fromarray(pixels.numpy()).save(place / f"{number}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    artifact().save(tmp_path / "student.safetensors")
    return tmp_path / "student.safetensors"


def by_hand(file: Path) -> list[float]:
    """The probabilities, written out."""
    pixels = Preprocessing.from_json(INFO.preprocessing)(open_picture(file))
    with torch.inference_mode():
        return artifact().model(normalised(pixels[None].numpy(), INFO.mean, INFO.std)).softmax(1)[0].tolist()


def test_a_picture_is_prepared_as_the_artifact_says(saved: Path, pictures: Path) -> None:
    predictions = distill.predict(saved, pictures)
    assert [Path(prediction["file"]).name for prediction in predictions] == [f"{n}.png" for n in range(5)]
    for prediction in predictions:
        expected = by_hand(Path(prediction["file"]))
        assert prediction["class"] == INFO.class_names[expected.index(max(expected))]
        assert prediction["probability"] == pytest.approx(max(expected), abs=1e-5)


@pytest.mark.parametrize(("format", "name"), [("onnx", "student.onnx"), ("openvino", "student.xml")])
def test_an_exported_file_suffices(format: str, name: str, saved: Path, pictures: Path, tmp_path: Path) -> None:
    if format == "openvino":
        pytest.importorskip("openvino")
    assert main(["export", str(saved), "--to", format, "--output", str(tmp_path / "export")]) == 0
    expected, found = distill.predict(saved, pictures), distill.predict(tmp_path / "export" / name, pictures)
    assert [one["class"] for one in found] == [one["class"] for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-4)


def test_pictures_in_memory_and_open_artifacts_do(pictures: Path) -> None:
    picture = open_picture(pictures / "0.png")
    assert distill.predict(artifact(), picture) == distill.predict(artifact(), [picture])
    (prediction,) = distill.predict(artifact(), picture)
    assert "file" not in prediction
    assert prediction["class"] == distill.predict(artifact(), pictures / "0.png")[0]["class"]


def test_a_picture_on_its_side_is_the_same_in_memory(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as picture:
        (seen,) = distill.predict(artifact(), picture)
        drawn = side_by_side([picture])
    (expected,) = distill.predict(artifact(), tmp_path / "a.png")
    assert seen == {key: value for key, value in expected.items() if key != "file"}
    assert drawn.tobytes() == side_by_side([tmp_path / "a.png"]).tobytes()


def test_files_folders_and_globs_name_pictures(pictures: Path) -> None:
    assert len(picture_files([pictures])) == 5
    assert [file.name for file in picture_files([pictures / "3.png", f"{pictures}/[01].png"])] == [
        "3.png",
        "0.png",
        "1.png",
    ]
    assert [file.name for file in picture_files([f"{pictures}/**/4.png"])] == ["4.png"]


@pytest.mark.parametrize("name", ["nowhere", "*.jpg", "empty"])
def test_what_names_no_picture_is_an_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is no picture, no folder with pictures, and no glob"):
        picture_files([tmp_path / name])


def test_a_damaged_picture_is_named(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError, match=r"bad.png"):
        distill.predict(saved, tmp_path / "bad.png")


def test_an_artifact_without_a_task_is_refused(tmp_path: Path, pictures: Path) -> None:
    whole = artifact()
    bare = Artifact(whole.model, network=whole.network)
    with pytest.raises(ArtifactError, match="does not say its info and task"):
        distill.predict(bare, pictures)


@pytest.mark.parametrize("name", ["bad.onnx", "bad.xml"])
def test_a_damaged_export_is_named(name: str, tmp_path: Path, pictures: Path) -> None:
    if name.endswith("xml"):
        pytest.importorskip("openvino")
        (tmp_path / "bad.bin").write_bytes(b"")
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(ExportError, match=name):
        distill.predict(tmp_path / name, pictures)


def test_pictures_of_many_sizes_are_batched_by_size(tmp_path: Path) -> None:
    whole = DataInfo(1, (8, 8), (0.5,), (0.5,), preprocessing={"mode": "L"})
    sizes = [(8, 8), (8, 8), (9, 8), (8, 8)]
    pictures = [Image.new("L", size, 255) for size in sizes]
    assert [tuple(batch.shape) for batch in batched_inputs(pictures, whole)] == [
        (2, 1, 8, 8),
        (1, 1, 8, 9),
        (1, 1, 8, 8),
    ]
    assert all(bool((batch == 1).all()) for batch in batched_inputs(pictures, whole))


def test_a_network_may_read_several_pictures_at_once() -> None:
    flow = DataInfo(3, (8, 8), (0.5,) * 3, (0.5,) * 3, images=2)
    white, black = Image.new("RGB", (8, 8), "white"), Image.new("RGB", (8, 8), "black")
    (batch,) = batched_inputs([white, black, black, white], flow)
    assert batch.shape == (2, 6, 8, 8)
    assert batch[:, :, 0, 0].tolist() == [[1, 1, 1, -1, -1, -1], [-1, -1, -1, 1, 1, 1]]
    with pytest.raises(DataError, match="reads 2 pictures at once, but there are 3"):
        list(batched_inputs([white] * 3, flow))


@pytest.mark.parametrize("preprocessing", [{"mode": "RGB"}, {"resize": 8}])
def test_pictures_that_are_read_at_once_have_one_size(tmp_path: Path, preprocessing: dict) -> None:
    flow = DataInfo(3, (8, 8), (0.5,) * 3, (0.5,) * 3, images=2, preprocessing=preprocessing)
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file, size in zip(files, [(8, 10), (12, 10)], strict=True):
        Image.new("RGB", size).save(file)
    with pytest.raises(DataError, match=rf"but {files[0]} is of 8x10 and {files[1]} is of 12x10 pixels\Z"):
        list(batched_inputs(files, flow))
    with pytest.raises(DataError, match=rf"but {files[0]} is of 8x10 and one is of 12x10 pixels\Z"):
        list(batched_inputs([files[0], Image.open(files[1])], flow))
    squares = DataInfo(3, (8, 8), (0.5,) * 3, (0.5,) * 3, images=2, preprocessing={"resize": [8, 8]})
    assert next(batched_inputs(files, squares)).shape == (1, 6, 8, 8)


def test_noise_is_the_same_each_time() -> None:
    (first,), (second,) = unlabelled_batches(INFO, None, 5), unlabelled_batches(INFO, None, 5)
    assert first.inputs.shape == (5, 3, 32, 32)
    assert torch.equal(first.inputs, second.inputs)
    lowest = torch.tensor([(0 - m) / s for m, s in zip(INFO.mean, INFO.std, strict=True)])
    torch.testing.assert_close(first.inputs.amin((0, 2, 3)), lowest)


class TestCommand:
    def test_prints_a_table(self, saved: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["predict", str(saved), str(pictures)]) == 0
        header, *rows = capsys.readouterr().out.splitlines()
        assert header.split() == ["file", "class", "probability"]
        assert len(rows) == 5

    def test_prints_json_and_draws(
        self, saved: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        drawn = tmp_path / "drawn"
        assert main(["predict", str(saved), str(pictures), "--json", "--draw", str(drawn)]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed == json.loads(json.dumps(distill.predict(saved, pictures)))
        assert len(list(drawn.glob("*.png"))) == 5
        assert all(open_picture(file).mode in ("RGB", "L") for file in drawn.iterdir())

    def test_names_are_printed_as_they_are(
        self, saved: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        names = (":smile:.png", f"{'n' * 240}.png")
        for name in names:
            (tmp_path / name).write_bytes(next(pictures.glob("*.png")).read_bytes())
        files = [str(tmp_path / name) for name in names]
        assert main(["predict", str(saved), *files, "--json", "--draw", str(tmp_path / "drawn")]) == 0
        assert [row["file"] for row in json.loads(capsys.readouterr().out)] == files
        assert len(list((tmp_path / "drawn").iterdir())) == 2

    def test_a_place_that_cannot_be_drawn_to_is_refused_before_anything_is_predicted(
        self, saved: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "drawn").touch()
        assert main(["predict", str(saved), str(pictures), "--draw", str(tmp_path / "drawn")]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err == f"error: File exists: {tmp_path / 'drawn'}; something else stands there; move it away\n"

    def test_a_damaged_picture_costs_none_before_it(
        self, saved: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        whole = (pictures / "0.png").read_bytes()
        middle, spoilt = len(whole) // 2, tmp_path / "spoilt.png"  # its beginning and its end are right
        spoilt.write_bytes(whole[: middle - 10] + bytes(20) + whole[middle + 10 :])
        given = [str(saved), str(pictures), str(spoilt), "--draw", str(tmp_path / "drawn")]
        assert main(["predict", *given, "--json"]) == 2
        printed = capsys.readouterr()
        assert "spoilt.png is no readable picture" in printed.err
        assert json.loads(printed.out) == json.loads(json.dumps(distill.predict(saved, pictures)))
        assert len(list((tmp_path / "drawn").iterdir())) == 5
        assert main(["predict", *given]) == 2
        assert len(capsys.readouterr().out.splitlines()) == 6

    def test_what_is_no_picture_is_named_before_anything_is_predicted(
        self, saved: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "bad.png").write_text("no picture")
        given = [str(saved), str(pictures), str(tmp_path / "bad.png"), "--draw", str(tmp_path / "drawn")]
        assert main(["predict", *given, "--json"]) == 2
        printed = capsys.readouterr()
        assert "bad.png is no readable picture" in printed.err
        assert printed.out == ""
        assert not (tmp_path / "drawn").exists()

    @pytest.mark.parametrize("command", ["export", "bench"])
    def test_no_data_set_is_needed(
        self, command: str, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        extra = ["--output", str(tmp_path)] if command == "export" else ["--batch-sizes", "1"]
        assert main([command, str(saved), *extra]) == 0
        assert ("on noise" if command == "export" else "median ms") in capsys.readouterr().out
