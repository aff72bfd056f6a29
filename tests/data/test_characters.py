"""Characters drawn from fonts: which, how, and fonts that lack some."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageFont

from distill.data import data
from distill.data._distort import Noise, StrokeWidth
from distill.data.characters import Face, characters_of, drawn
from distill.errors import DataError, RecipeError

DEJAVU = sorted(Path("/usr/share/fonts").rglob("DejaVuSans*.ttf"))
needs_fonts = pytest.mark.skipif(len(DEJAVU) < 3, reason="needs the package fonts-dejavu")


def make(seed=0, **settings):
    return data.find("characters")(seed, **{"copies": 2, "image_size": 24, "workers": 0, **settings})


def test_the_sets_are_those_of_gb_2312():
    """Row D7 ends early; the first and the last characters, and rows in between, as the standard's tables have them."""
    whole = characters_of("gb2312_3755")
    assert len(whole) == len(set(whole)) == 3755
    assert (whole[0], whole[-1]) == ("啊", "座")
    assert whole.index("一") == 94 * (0xD2 - 0xB0) + 0xBB - 0xA1
    assert characters_of("gb2312_500") == whole[:500]
    assert len(characters_of("latin")) == 52


def test_a_character_is_drawn_in_the_middle():
    for character in "AgjW":
        dark = np.asarray(drawn(Face(), character, 32)) < 128
        rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
        assert rows[0] + rows[-1] == pytest.approx(31, abs=2)
        assert columns[0] + columns[-1] == pytest.approx(31, abs=2)
        assert 12 < rows[-1] - rows[0] < 32


def test_every_letter_is_there_as_often_as_asked_for():
    module = make(val=0.0)
    assert module.train_labels().bincount().tolist() == [2] * 52
    assert module.test.classes.bincount().tolist() == [2] * 52
    assert make(distort_test=False).test.classes.bincount().tolist() == [1] * 52


def test_test_samples_are_distorted_each_in_its_own_way_the_same_for_every_seed():
    batches = [torch.cat([batch.inputs for batch in make(seed).test_dataloader()]) for seed in (0, 0, 1)]
    assert torch.equal(batches[0], batches[1])
    assert torch.equal(batches[0], batches[2])
    assert not torch.equal(batches[0][:52], batches[0][52:])
    plain = torch.cat([batch.inputs for batch in make(distort_test=False).test_dataloader()])
    assert not torch.equal(batches[0][:52], plain)
    drawn_again = torch.cat([batch.inputs for batch in make(val=0.0).calibration(104)])
    assert {x.numpy().tobytes() for x in plain} == {x.numpy().tobytes() for x in drawn_again}


def test_distortions_keep_letters_readable():
    """Shifted, turned and thickened as it is, a letter is still nearer to its own plain picture than to most others."""
    module = make(copies=4, image_size=32)
    plain = torch.stack([torch.tensor(np.array(drawn(Face(), c, 32))).float() for c in module.info.class_names])
    nearest = []
    for batch in module.test_dataloader():
        distances = torch.cdist(batch.inputs.flatten(1), ((plain / 255 - 0.9) / 0.25).flatten(1))
        rank = distances.argsort(1).argsort(1)[torch.arange(len(batch.labels)), batch.labels]
        nearest.append(rank < 10)
    assert torch.cat(nearest).float().mean() > 0.4  # by chance 10 of 52, or 0.19


def test_strokes_and_noise_change_what_they_say():
    letter, random = drawn(Face(), "A", 32), torch.random.get_rng_state()
    torch.manual_seed(0)
    ink = {(255 - np.asarray(StrokeWidth()(letter), np.float32)).sum() for _ in range(20)}
    assert len(ink) == 3
    noisy = [np.asarray(Noise()(letter), np.float32) for _ in range(20)]
    assert all(values[0].std() > 0 for values in noisy)
    assert max(values[0].std() for values in noisy) < 25
    torch.random.set_rng_state(random)


@needs_fonts
def test_whole_fonts_are_held_out(tmp_path):
    for path in DEJAVU[:3]:
        shutil.copy(path, tmp_path)
    module = make(root=tmp_path, test=0.3)
    trained, tested = ({face.path for face in source.reader.faces} for source in (module.train, module.test))
    assert (len(trained), len(tested)) == (2, 1)
    assert not trained & tested
    assert len(module.train) + len(module.val) == 2 * 2 * 52


@needs_fonts
def test_a_font_without_a_glyph_is_named(tmp_path):
    path = Path(shutil.copy(DEJAVU[0], tmp_path))
    with pytest.raises(DataError, match=f"{path} has no glyph for '啊'; remove it"):
        make(root=tmp_path, set="gb2312_500")
    path.unlink()  # FreeType maps files into memory: one that shrinks in place ends the process
    path.write_bytes(b"no font")
    with pytest.raises(DataError, match=f"{path} is no readable font"):
        make(root=tmp_path)


def test_where_there_are_no_fonts_the_message_says_how_to_get_some(tmp_path, monkeypatch):
    monkeypatch.setattr("distill.data.characters.SYSTEM_FONTS", tmp_path)
    with pytest.raises(DataError, match=r"no fonts for data.set=gb2312_500 in .*apt install fonts-noto-cjk"):
        make(set="gb2312_500")
    with pytest.raises(DataError, match=rf"no fonts for data.set=latin in {tmp_path} \(data.root\)\Z"):
        make(root=tmp_path)
    with pytest.raises(RecipeError, match=r"data.image_size=15: characters need at least 16 pixels"):
        make(image_size=15)


def test_pillow_s_own_font_is_one_of_outlines():
    assert isinstance(ImageFont.load_default(24), ImageFont.FreeTypeFont)
