"""Picture files: every kind as a person sees it, or refused by name."""

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from distill.data.decoding import open_picture, picture_size, upright
from distill.errors import DataError

GREY = (np.arange(24 * 16).reshape(24, 16) % 256).astype(np.uint8)
COLOURS = np.random.default_rng(0).integers(0, 256, (24, 16, 3), np.uint8)


def levels(path) -> np.ndarray:
    return np.asarray(open_picture(path))


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "bmp", "ppm"])
def test_colours_are_read_as_written(tmp_path, suffix):
    Image.fromarray(COLOURS).save(tmp_path / f"a.{suffix}", lossless=True)
    picture = open_picture(tmp_path / f"a.{suffix}")
    assert picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture), COLOURS)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_stands_upright_as_exif_says(tmp_path, suffix, orientation):
    """Against Pillow's own exif_transpose, and against a marked corner for the rotations of phones."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    corner = np.zeros((24, 16, 3), np.uint8)
    corner[:8, :8] = 255
    Image.fromarray(corner).save(path, exif=exif, lossless=True, quality=95)
    with Image.open(path) as file:
        file.load()
        expected = np.asarray(ImageOps.exif_transpose(file))
    assert np.array_equal(levels(path), expected)
    assert levels(path).shape == ((24, 16, 3) if orientation < 5 else (16, 24, 3))
    bright = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    assert levels(path)[bright[orientation]].min() > 200
    assert picture_size(path) == levels(path).shape[:2]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_an_open_picture_is_seen_as_its_file_is_and_turned_once(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOURS).save(tmp_path / f"a.{suffix}", exif=exif)
    with Image.open(tmp_path / f"a.{suffix}") as file:
        once = upright(file)
    assert np.array_equal(np.asarray(once), levels(tmp_path / f"a.{suffix}"))
    assert np.array_equal(np.asarray(upright(once)), np.asarray(once))


def test_pictures_in_memory_are_seen_as_files_are():
    kept = Image.fromarray(GREY.astype(np.uint16) * 257)
    assert np.array_equal(np.asarray(upright(kept)), GREY)
    assert kept.mode == "I;16"
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert upright(clear).getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(DataError, match="a picture in memory holds integers of 32 bits without a defined white"):
        upright(Image.new("I", (4, 4)))


def test_damaged_exif_data_says_nothing(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(COLOURS).save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09\xff\xff\xff")
    assert levels(path).shape == (24, 16, 3)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm", "jp2"])
def test_16_bits_are_scaled_to_8(tmp_path, suffix):
    path, values = tmp_path / f"a.{suffix}", GREY.astype(np.uint16) * 257
    if suffix == "pgm":
        path.write_bytes(b"P5 16 24 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(path)
    assert np.array_equal(levels(path), GREY)


def tiff(path, values, *, bits, sample_format=1, photometric=1):
    """The smallest TIFF of one channel, so that signs, bits and photometric are what the test says."""
    content = values.tobytes()
    fields = [(256, 4, values.shape[1]), (257, 4, values.shape[0]), (258, 3, bits), (259, 3, 1), (262, 3, photometric)]
    fields += [(273, 4, 8), (277, 3, 1), (278, 4, values.shape[0]), (279, 4, len(content)), (339, 3, sample_format)]
    entries = b"".join(
        tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + (1).to_bytes(4, "little") + value.to_bytes(4, "little")
        for tag, kind, value in fields
    )
    start = (8 + len(content)).to_bytes(4, "little")
    path.write_bytes(b"II*\0" + start + content + len(fields).to_bytes(2, "little") + entries + bytes(4))
    return path


@pytest.mark.parametrize(
    ("dtype", "bits", "sample_format", "white"),
    [
        ("<u2", 16, 1, 2**16 - 1),
        ("<i2", 16, 2, 2**15 - 1),
        ("<u4", 32, 1, 2**32 - 1),
        ("<i4", 32, 2, 2**31 - 1),
        ("<f4", 32, 3, 1),
    ],
)
def test_every_type_of_tiff_is_scaled_by_its_range(tmp_path, dtype, bits, sample_format, white):
    values = GREY / 255 * white
    values = (values if white == 1 else values.round()).astype(dtype)
    path = tiff(tmp_path / "a.tif", values, bits=bits, sample_format=sample_format)
    assert np.array_equal(levels(path), GREY)


@pytest.mark.parametrize("dtype", ["<u1", "<u2"])
def test_tiff_may_store_white_as_zero(tmp_path, dtype):
    bits = 8 * np.dtype(dtype).itemsize
    values = (GREY.astype(np.uint32) * (2**bits - 1) // 255).astype(dtype)
    assert np.array_equal(levels(tiff(tmp_path / "a.tif", values, bits=bits, photometric=0)), 255 - GREY)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 4), np.nan, np.float32), "holds values from nan to nan"),
        (np.full((4, 4), 200, np.float32), "holds values from 200.0 to 200.0, but black is 0 and white 1: scale them"),
        (np.full((4, 4), -1, np.int32), "holds values from -1 to -1"),
        (np.full((4, 4), 255, np.int32), "holds values up to 255, but white is 2147483647: save it with 8 or 16 bits"),
    ],
)
def test_values_without_a_defined_white_are_refused(tmp_path, values, message):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=rf"{tmp_path}/a\.tif {message}"):
        open_picture(tmp_path / "a.tif")


def transparent_files(folder):
    """A red field, its left half hidden, in every form of transparency."""
    alpha = np.repeat([[0] * 8 + [255] * 8], 24, axis=0).astype(np.uint8)
    red = np.zeros((24, 16, 3), np.uint8)
    red[..., 0] = 255
    layered = Image.fromarray(np.dstack([red, alpha]))
    layered.save(folder / "rgba.png")
    layered.save(folder / "rgba.webp", lossless=True)
    layered.quantize(4).save(folder / "palette.png")
    blue = red.copy()
    blue[:, :8] = (0, 0, 255)
    Image.fromarray(blue).save(folder / "key.png", transparency=(0, 0, 255))


def test_transparency_shows_white(tmp_path):
    transparent_files(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        seen = levels(path)
        assert (seen[:, :8] == 255).all(), path
        assert (seen[:, 8:] == (255, 0, 0)).all(), path


def test_grey_transparency_shows_white(tmp_path):
    Image.merge("LA", [Image.new("L", (4, 4), 0), Image.new("L", (4, 4), 128)]).save(tmp_path / "la.png")
    picture = open_picture(tmp_path / "la.png")
    assert picture.mode == "L"
    assert picture.getpixel((0, 0)) == pytest.approx(127, abs=1)
    Image.fromarray(np.array([[0, 257], [514, 65535]], np.uint16)).save(tmp_path / "key.png", transparency=257)
    assert levels(tmp_path / "key.png").tolist() == [[0, 255], [2, 255]]


def test_other_modes(tmp_path):
    Image.fromarray(GREY > 127).save(tmp_path / "one.png")
    assert np.array_equal(levels(tmp_path / "one.png"), np.where(GREY > 127, 255, 0))
    Image.fromarray(COLOURS).quantize(256).save(tmp_path / "palette.png")
    assert open_picture(tmp_path / "palette.png").mode == "RGB"
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    assert open_picture(tmp_path / "cmyk.jpg").getpixel((0, 0)) == pytest.approx((255, 0, 0), abs=6)
    Image.new("RGB", (4, 4), (200, 100, 50)).convert("LAB").save(tmp_path / "lab.tif")
    assert open_picture(tmp_path / "lab.tif").getpixel((0, 0)) == pytest.approx((200, 100, 50), abs=3)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_an_animation_is_refused_whatever_its_name(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    path = (tmp_path / f"a.{suffix}").rename(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=rf"{path} holds 3 frames, not one picture; keep one of them"):
        open_picture(path)


def test_a_phone_s_second_picture_is_no_animation(tmp_path):
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    first.save(tmp_path / "a.mpo", save_all=True, append_images=[second])
    assert open_picture(tmp_path / "a.mpo").getpixel((0, 0)) == pytest.approx((255, 0, 0), abs=6)


def test_a_gif_of_one_frame_is_a_picture(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.gif")
    assert np.array_equal(np.asarray(open_picture(tmp_path / "a.gif").convert("L")), GREY)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_a_damaged_file_is_named_in_one_line(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"\A{tmp_path}/a\.png is no readable picture \(.*\); replace or remove it\Z"):
        open_picture(tmp_path / "a.png")


def test_a_missing_file_and_a_decompression_bomb_are_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.png is no readable picture \(.*No such file"):
        open_picture(tmp_path / "a.png")
    text = PngInfo()
    text.add_text("note", "x")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png", pnginfo=text)
    with pytest.raises(DataError, match=r"bomb\.png is no readable picture \(.*decompression bomb"):
        open_picture(tmp_path / "bomb.png")


def test_a_large_jpeg_is_decoded_no_larger_than_needed(tmp_path):
    Image.effect_noise((1600, 2400), 50).convert("RGB").save(tmp_path / "a.jpg")
    assert open_picture(tmp_path / "a.jpg", side=400).size == (400, 600)
    assert open_picture(tmp_path / "a.jpg", side=401).size == (800, 1200)
    assert open_picture(tmp_path / "a.jpg").size == (1600, 2400)
