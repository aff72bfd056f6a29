"""Characters drawn from fonts: which, how, and fonts that lack some."""

import shutil
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from distill.data import data
from distill.data._distort import Distort, draw
from distill.data._loading import BatchIndices
from distill.data.characters import characters_of
from distill.data.fonts import Face, drawn, glyphs, has_glyph
from distill.errors import DataError, RecipeError

FONTS = Path("/usr/share/fonts")
DEJAVU = [*sorted(FONTS.rglob("DejaVuSans*.ttf"))[:2], *sorted(FONTS.rglob("DejaVuSerif*.ttf"))[:2]]
needs_fonts = pytest.mark.skipif(len(DEJAVU) < 4, reason="needs the package fonts-dejavu")


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """Where glyphs are kept."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setattr(Path, "home", lambda: folder)
    return folder


def make(seed=0, **settings):
    return data.find("characters")(seed, **{"copies": 2, "image_size": 24, **settings})


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


def distorted(images, epoch=0, samples=None):
    chosen = torch.arange(len(images)) if samples is None else samples
    return Distort(0, 52)(images[chosen.numpy()], BatchIndices(epoch, chosen))


def test_a_distortion_depends_on_seed_epoch_and_sample_alone():
    images = np.asarray(glyphs(Face(), characters_of("latin"), 24))[:, None]
    whole, some = distorted(images), torch.tensor([40, 3, 17])
    assert np.array_equal(whole[some.numpy()], distorted(images, samples=some))
    assert not np.array_equal(whole, distorted(images, epoch=1))
    assert np.array_equal(Distort(0, 52, epoch=0)(images, BatchIndices(7, torch.arange(52))), whole)


def test_without_noise_strokes_and_bends_a_distortion_is_affine(monkeypatch):
    """What grid_sample makes of the affine matrix is compared with Pillow's own transform of the same coefficients."""
    drawn_by_chance = draw(0, 0, 52)
    still = drawn_by_chance._replace(
        stroke=torch.full((52,), 3),
        elastic=torch.zeros(52, 2, 5, 5),
        contrast=torch.ones(52),
        deviation=torch.zeros(52),
    )
    monkeypatch.setattr("distill.data._distort.draw", lambda *_: still)
    images = np.asarray(glyphs(Face(), characters_of("latin"), 32))[:, None]
    found = distorted(images).astype(float)[:, 0]
    for i in range(0, 52, 7):
        (a, b, c), (d, e, f) = still.affine[i].tolist()  # from -1 to 1; Pillow counts pixels from a corner
        coefficients = (a, b, 16 * (1 - a - b + c), d, e, 16 * (1 - d - e + f))
        letter = Image.fromarray(images[i, 0])
        expected = letter.transform((32, 32), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, 1, 255)
        inner = np.abs(found[i] - np.asarray(expected))[3:-3, 3:-3]  # at the border Pillow repeats pixels
        assert inner.mean() < 1


def test_strokes_get_thicker_and_thinner_and_noise_has_its_deviation(monkeypatch):
    images = np.asarray(glyphs(Face(), "HILT", 32))[:, None]
    still = draw(0, 0, 52)._replace(
        affine=torch.eye(2, 3).repeat(52, 1, 1), elastic=torch.zeros(52, 2, 5, 5), contrast=torch.full((52,), 0.6)
    )
    ink = []
    for stroke in (0, 2, 1):
        monkeypatch.setattr(
            "distill.data._distort.draw",
            lambda *_, stroke=stroke: still._replace(stroke=torch.full((52,), stroke), deviation=torch.zeros(52)),
        )
        ink.append((255.0 - distorted(images)).sum((1, 2, 3)))
    assert (ink[0] > 1.2 * ink[1]).all()
    assert (ink[1] > 1.2 * ink[2]).all()
    np.testing.assert_allclose(ink[1], 0.6 * (255.0 - images).sum((1, 2, 3)), rtol=0.01)
    grey = np.full((4, 1, 32, 32), 55, np.uint8)  # ink of 200, of contrast 0.6: 255 - 120
    monkeypatch.setattr(
        "distill.data._distort.draw",
        lambda *_: still._replace(stroke=torch.full((52,), 2), deviation=torch.full((52,), 9.0)),
    )
    noisy = distorted(grey).astype(float)
    assert noisy.std() == pytest.approx(9, rel=0.05)
    assert noisy.mean() == pytest.approx(135, abs=1)


def copied(folder, paths=DEJAVU):
    folder.mkdir(exist_ok=True)
    for path in paths:
        shutil.copy(path, folder)
    return folder


def parted(module, root):
    """How often each font's plain pictures are in the training set and in the test set."""
    pictures = {path.name: glyphs(Face(path.resolve()), characters_of("latin"), 24) for path in sorted(root.iterdir())}
    sets = [{image.tobytes() for image in part.images[:, 0].numpy()} for part in (module.plain, module.test)]
    return [{name for name, every in pictures.items() if {x.tobytes() for x in every} <= part} for part in sets]


@needs_fonts
def test_whole_families_of_fonts_are_held_out(tmp_path):
    """Sans and Serif are two families, each with two weights."""
    root = copied(tmp_path / "fonts")
    trained, tested = parted(make(root=root, test=0.3, val=0.0, copies=1), root)
    assert len(trained) == len(tested) == 2
    assert {name[:9] for name in trained} in ({"DejaVuSan"}, {"DejaVuSer"})
    assert not {name[:9] for name in trained} & {name[:9] for name in tested}


@needs_fonts
def test_held_out_fonts_are_named_and_the_rest_of_their_family_is_left_out(tmp_path):
    root = copied(tmp_path / "fonts")
    trained, tested = parted(make(root=root, held_out=[DEJAVU[0].name], val=0.0, copies=1), root)
    assert tested == {DEJAVU[0].name}
    assert trained == {path.name for path in DEJAVU[2:]}
    with pytest.raises(RecipeError, match=r"data.held_out: none of the 4 fonts is called Seto\*; is it installed"):
        make(root=root, held_out=["Seto*"])
    with pytest.raises(RecipeError, match=r"data.held_out: no family of fonts is left to train on"):
        make(root=root, held_out=["*"])


@needs_fonts
def test_a_font_without_a_glyph_is_named(tmp_path):
    root = copied(tmp_path / "fonts", DEJAVU[:1])
    path = root / DEJAVU[0].name
    lacks = rf"{path} has no glyph for '啊' \(U\+554A\) and 499 other characters of data.set=gb2312_500; remove it"
    with pytest.raises(DataError, match=lacks):
        make(root=root, set="gb2312_500")
    path.unlink()  # FreeType maps files into memory: one that shrinks in place ends the process
    path.write_bytes(b"no font")
    with pytest.raises(DataError, match=f"{path} is no readable font"):
        make(root=root)


def damaged(path, seed):
    """400 bytes of a font's glyphs are random; its tables and names are whole."""
    content, random = bytearray(path.read_bytes()), Random(seed)
    for _ in range(400):
        content[random.randrange(len(content) // 4, len(content))] = random.randrange(256)
    path.unlink()
    path.write_bytes(content)


@needs_fonts
@pytest.mark.parametrize("seed", [1, 2])
def test_a_font_with_a_damaged_glyph_is_named_or_left_out_of_the_system_s(tmp_path, monkeypatch, seed):
    root = copied(tmp_path / "fonts", DEJAVU[:2])
    alone = copied(tmp_path / "good", DEJAVU[:1])
    monkeypatch.setattr(
        "distill.data.characters.characters_of", lambda _: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrst"
    )
    path = root / DEJAVU[1].name
    damaged(path, seed)
    with pytest.raises(DataError, match=rf"{path} cannot draw U\+00.. \(.*\): it is damaged; replace or remove it"):
        make(root=root)
    fingerprints = set()
    for folder in (root, alone):
        monkeypatch.setattr("distill.data.characters.SYSTEM_FONTS", folder)
        fingerprints.add(make(set="gb2312_500").fingerprint())
    assert len(fingerprints) == 1


@needs_fonts
def test_a_damaged_font_has_no_glyph(tmp_path):
    path = copied(tmp_path / "fonts", DEJAVU[1:2]) / DEJAVU[1].name
    damaged(path, 1)
    assert not all(has_glyph(Face(path), character) for character in characters_of("latin"))


@needs_fonts
def test_what_a_font_may_lack_is_not_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("distill.data.characters.characters_of", lambda _: "AB啊CD")
    root = copied(tmp_path / "fonts")
    module = make(root=root, missing=0.2, val=0.0, copies=1)
    assert module.train_labels().bincount(minlength=5).tolist() == [2, 2, 0, 2, 2]
    with pytest.raises(DataError, match=r"has no glyph for '啊' \(U\+554A\) of data.set=latin; remove it, or raise"):
        make(root=root, missing=0.19)


@needs_fonts
def test_glyphs_are_drawn_once_and_again_when_their_font_changes(tmp_path, home):
    root = copied(tmp_path / "fonts", DEJAVU[:1])
    first = make(root=root).fingerprint()
    kept = sorted((home / ".cache" / "distill" / "glyphs").iterdir())
    assert make(root=root).fingerprint() == first
    assert sorted((home / ".cache" / "distill" / "glyphs").iterdir()) == kept
    kept[0].write_bytes(b"damaged")
    assert make(root=root).fingerprint() == first
    (root / DEJAVU[0].name).unlink()
    shutil.copy(DEJAVU[2], root / DEJAVU[0].name)
    assert make(root=root).fingerprint() != first


@needs_fonts
def test_a_glyph_is_one_that_is_drawn():
    assert has_glyph(Face(), "A")
    assert has_glyph(Face(), " ")
    assert not has_glyph(Face(), "啊")
    assert not has_glyph(Face(DEJAVU[0]), "啊")


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
