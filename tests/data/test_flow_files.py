"""Files of optical flow: as torchvision reads them, and named where they are damaged."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from distill.data import data
from distill.data._flow_files import read_flo, read_kitti
from distill.errors import DataError, RecipeError
from tests.data import moves

SIZE = {"height": 32, "width": 40, "batch_size": 4, "workers": 0}


def test_flo_files_are_read_as_written(tmp_path):
    values = np.random.default_rng(0).normal(size=(2, 5, 7)).astype(np.float32)
    values[:, 1, 2] = 2e9
    moves.write_flo(tmp_path / "a.flo", values)
    found = read_flo(tmp_path / "a.flo")
    assert np.isnan(found[:, 1, 2]).all()
    values[:, 1, 2] = np.nan
    assert np.array_equal(found, values, equal_nan=True)


def test_kitti_files_are_read_as_written(tmp_path):
    random = np.random.default_rng(0)
    values = random.integers(-3000, 3000, (2, 5, 7)) / 64
    known = random.random((5, 7)) < 0.5
    moves.write_kitti(tmp_path / "a.png", values, known)
    assert np.array_equal(read_kitti(tmp_path / "a.png"), np.where(known, values, np.nan), equal_nan=True)


def same(reader, reference):
    assert len(reader) == len(reference) > 0
    for position in range(len(reader)):
        sample, (first, second, flow, *_) = reader.read(position), reference[position]
        assert np.array_equal(sample.pictures[0], first)
        assert np.array_equal(sample.pictures[1], second)
        known = sample.label.isfinite()
        assert known.any()
        assert np.array_equal(sample.label[known], torch.from_numpy(flow)[known])


def test_flying_chairs_are_those_of_torchvision(tmp_path):
    root = moves.write_chairs(tmp_path / "FlyingChairs")
    marks = [1 + (number % 5 == 0) for number in range(20)]
    (tmp_path / "FlyingChairs_train_val.txt").write_text("\n".join(map(str, marks)))
    (root / "FlyingChairs_train_val.txt").write_text("\n".join(map(str, marks)))
    module = data.find("flying_chairs")(0, root=root, **SIZE)
    same(module.train.reader, datasets.FlyingChairs(tmp_path, "train"))
    same(module.test.reader, datasets.FlyingChairs(tmp_path, "val"))


def test_sintel_is_that_of_torchvision_and_split_by_scenes(tmp_path):
    root = moves.write_sintel(tmp_path / "Sintel")
    module = data.find("sintel")(0, root=root, test=0.3, **SIZE)
    parts = {
        part: {pair.flow.parent.name for pair in source.reader.pairs}
        for part, source in (("train", module.train), ("test", module.test))
    }
    assert [len(scenes) for scenes in parts.values()] == [7, 3]
    assert not parts["train"] & parts["test"]
    reference = datasets.Sintel(tmp_path, pass_name="clean")
    by_name = {name: number for number, name in enumerate(reference._flow_list)}
    for source in (module.train, module.test):
        chosen = [by_name[str(pair.flow)] for pair in source.reader.pairs]
        same(source.reader, torch.utils.data.Subset(reference, chosen))


def test_kitti_is_that_of_torchvision(tmp_path):
    root = moves.write_kitti_flow(tmp_path / "KittiFlow")
    module = data.find("kitti_flow")(0, root=root, **SIZE)
    same(module.train.reader, datasets.KittiFlow(tmp_path))
    valid = torch.cat([batch.labels["valid"] for batch in module.test_dataloader()])
    assert 0.3 < valid.float().mean() < 0.7


def test_a_batch_holds_both_pictures_and_the_flow(tmp_path):
    module = data.find("flying_chairs")(0, root=moves.write_chairs(tmp_path), flip=True, **SIZE)
    assert (module.info.images, module.info.channels) == (2, 3)
    seen = set()
    for batch in module.train_dataloader():
        assert batch.inputs.shape == (4, 6, 32, 40)
        assert batch.labels["flow"].shape == (4, 2, 32, 40)
        assert batch.labels["valid"].all()
        seen |= set(batch.labels["flow"][:, 0, 0, 0].tolist())
    assert seen >= {3.0, -3.0} or seen >= {4.0, -4.0}  # mirrored pictures move the other way


def test_pictures_smaller_than_the_crop_are_padded_with_unknown_flow(tmp_path):
    settings = SIZE | {"height": 64, "width": 96}
    module = data.find("flying_chairs")(0, root=moves.write_chairs(tmp_path), **settings)
    for loader in (module.train_dataloader(), module.test_dataloader()):
        for batch in loader:
            assert batch.inputs.shape[2:] == (64, 96)
            assert batch.labels["valid"].float().mean() == pytest.approx(48 * 64 / (64 * 96))


def damaged():
    head = struct.pack("<fii", 202021.25, 64, 48)
    body = moves.flow(0).transpose(1, 2, 0).astype("<f4")
    yield b"", "is no .flo file"
    yield b"PIEH", "is no .flo file"
    yield struct.pack("<fii", 1.0, 64, 48) + body.tobytes(), "is no .flo file: it does not begin with 'PIEH'"
    yield (
        head + body.tobytes()[:-4],
        "is damaged: 24584 bytes for flow of 64x48 pixels",
    )
    yield struct.pack("<fii", 202021.25, -64, -48) + body.tobytes(), "is damaged: .* for flow of -64x-48 pixels"
    yield struct.pack("<fii", 202021.25, 2**31 - 1, 2**31 - 1), "is damaged: 12 bytes for flow of 2147483647x2147483647"
    for value in (np.nan, np.inf, -np.inf):
        damage = body.copy()
        damage[2, 5, 1] = value
        yield head + damage.tobytes(), r"holds NaN or Inf, first at pixel \(5, 2\)"
    yield head + np.full_like(body, 1e10).tobytes(), "the flow of all its pixels is unknown; remove the pair"
    yield struct.pack("<fii", 202021.25, 48, 64) + body.tobytes(), "is of 48x64"


@pytest.mark.parametrize(("content", "message"), list(damaged()))
def test_damaged_flow_is_named_before_training(tmp_path, content, message):
    path = moves.write_chairs(tmp_path) / "data/00003_flow.flo"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path}:? {message}"):
        data.find("flying_chairs")(0, root=tmp_path, **SIZE)


def test_other_pictures_in_place_of_kitti_s_flow_are_named(tmp_path):
    path = moves.write_kitti_flow(tmp_path) / "training/flow_occ/000003_10.png"
    for content in (b"", b"no picture"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{path} is no readable picture"):
            data.find("kitti_flow")(0, root=tmp_path, **SIZE)
    Image.new("RGB", (64, 48)).save(path)
    with pytest.raises(DataError, match=f"{path} holds no flow: KITTI writes PNG files of 3 channels and 16 bits"):
        data.find("kitti_flow")(0, root=tmp_path, **SIZE)


def test_what_is_missing_is_named(tmp_path):
    for name in ("flying_chairs", "sintel", "kitti_flow"):
        with pytest.raises(DataError, match=f"{tmp_path}.* holds no"):
            data.find(name)(0, root=tmp_path)
    root = moves.write_chairs(tmp_path / "chairs")
    (root / "FlyingChairs_train_val.txt").write_text("1 2 3")
    with pytest.raises(DataError, match=r"should hold 1 \(train\) or 2 \(test\) for each of 20 pairs"):
        data.find("flying_chairs")(0, root=root)
    (root / "FlyingChairs_train_val.txt").unlink()
    (root / "data/00003_img2.ppm").unlink()
    with pytest.raises(DataError, match=r"00003_img2.ppm: No such file"):
        data.find("flying_chairs")(0, root=root)
    root = moves.write_sintel(tmp_path / "sintel", scenes=2)
    with pytest.raises(RecipeError, match=r"data.test=0.9 of 2 scenes"):
        data.find("sintel")(0, root=root, test=0.9)
    (root / "training/clean/scene_1/frame_0003.png").unlink()
    with pytest.raises(DataError, match=r"scene_1: 2 flows for 2 frames, but one less is expected"):
        data.find("sintel")(0, root=root)


def test_kitti_s_flow_that_is_known_nowhere_is_named(tmp_path):
    path = moves.write_kitti_flow(tmp_path) / "training/flow_occ/000003_10.png"
    moves.write_kitti(path, moves.flow(3), np.zeros((moves.HEIGHT, moves.WIDTH), bool))
    with pytest.raises(DataError, match=f"{path}: the flow of all its pixels is unknown; remove the pair"):
        data.find("kitti_flow")(0, root=tmp_path, **SIZE)


def test_a_picture_on_its_side_is_named_before_training(tmp_path):
    """Upright, the picture of a frame is not of the size of its flow."""
    path = moves.write_sintel(tmp_path) / "training/clean/scene_3/frame_0002.png"
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.open(path).save(path, exif=tags)
    with pytest.raises(
        DataError, match=f"{path} is of 48x64 pixels, .* is of 64x48, its size without its Exif orientation"
    ):
        data.find("sintel")(0, root=tmp_path, **SIZE)


@pytest.mark.parametrize(
    ("name", "write", "files"),
    [
        ("flying_chairs", moves.write_chairs, ["data/00003_flow.flo", "data/00005_img1.ppm", "data/00007_img2.ppm"]),
        (
            "kitti_flow",
            moves.write_kitti_flow,
            ["flow_occ/000003_10.png", "image_2/000005_10.png", "image_2/000005_11.png"],
        ),
        ("sintel", moves.write_sintel, ["flow/scene_0/frame_0002.flo", "clean/scene_1/frame_0002.png"]),
    ],
)
def test_endings_in_upper_case_are_those_of_the_same_pairs(tmp_path, name, write, files):
    root = write(tmp_path)

    def read():
        module = data.find(name)(0, root=root, **SIZE)
        samples = [
            part.reader.read(position) for part in (module.train, module.test) for position in part.chosen.tolist()
        ]
        return [
            (*(picture.tobytes() for picture in sample.pictures), sample.label.numpy().tobytes()) for sample in samples
        ]

    before = read()
    folder = root if name == "flying_chairs" else root / "training"
    for file in files:
        (folder / file).rename((folder / file).with_suffix(Path(file).suffix.upper()))
    assert read() == before
    lower = folder / files[0]
    lower.write_bytes(b"a second one")
    with pytest.raises(DataError, match=f"{lower} and {lower.with_suffix(lower.suffix.upper())} are one name; remove"):
        read()
