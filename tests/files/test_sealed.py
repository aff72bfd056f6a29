"""Records notice what happened to them."""

import json
import math
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.files import sealed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(record=st.dictionaries(st.text().filter(lambda name: name != sealed.DIGEST), JSON, max_size=4))
def test_what_was_written_is_read(record: dict, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "record.json"
    sealed.write(path, record)
    assert sealed.read(path) == record


def test_numbers_that_json_lacks_come_back(tmp_path: Path) -> None:
    sealed.write(tmp_path / "a.json", {"loss": math.nan, "best": math.inf})
    read = sealed.read(tmp_path / "a.json")
    assert math.isnan(read["loss"])
    assert read["best"] == math.inf


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_never_changes_what_is_read(
    position: int, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.json"
    record = {
        "key": "1a2b",
        "metrics": {"val/accuracy": 0.8125},
        "curve": [{"epoch": 1}],
        "name": "\N{LATIN SMALL LETTER E WITH ACUTE}",
    }
    sealed.write(path, record)
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    path.write_bytes(content)
    with suppress(sealed.DamagedFileError):
        assert sealed.read(path) in (record, None)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_damaged(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(sealed.DamagedFileError, match="a.json is not JSON"):
        sealed.read(tmp_path / "a.json")


@pytest.mark.parametrize("content", [{"accuracy": 1}, [1, 2], 3, None])
def test_json_of_something_else_is_not_ours(content: object, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert sealed.read(tmp_path / "a.json") is None
    assert sealed.read(tmp_path / "missing.json") is None
