"""Quantize and encode: codes of all weights, then few bits for them."""

import pytest
import torch
from torch import nn

from distill.artifact import Artifact
from distill.codecs import codec
from distill.compress.encode import encode
from distill.compress.quantize import quantize
from distill.errors import RecipeError
from distill.stored import Encoded, Quantized
from tests.compress import nets


def test_every_weight_has_codes_and_nothing_else_changes() -> None:
    artifact = nets.artifact()
    done = quantize(artifact)
    before, after = artifact.model.state_dict(), done.model.state_dict()
    weights = {name for name, tensor in before.items() if tensor.dim() > 1}
    assert set(done.stored) == weights - {"tied_too.weight"}
    for name in before:
        assert torch.equal(before[name], after[name]) == (name not in weights), name


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_scales_belong_to_output_channels(bits: int) -> None:
    done = quantize(nets.artifact(), bits=bits)
    for name, axis in (("stem.weight", 0), ("depthwise.weight", 0), ("up.weight", 1), ("head.weight", 0)):
        form = done.stored[name]
        assert isinstance(form, Quantized)
        assert (form.axis, form.bits) == (axis, bits)
        assert form.codes.abs().amax([a for a in range(form.codes.dim()) if a != axis]).eq(2 ** (bits - 1) - 1).all()


def test_codes_are_a_quarter_of_the_weights() -> None:
    linear = nn.Linear(256, 128, bias=False)
    assert sum(form.nbytes() for form in quantize(Artifact(linear)).stored.values()) == 256 * 128 + 2 * 128


def test_quantizing_again_changes_nothing() -> None:
    once = quantize(nets.artifact())
    assert quantize(once).to_bytes() == once.to_bytes()


def test_bits_out_of_range() -> None:
    unchecked = getattr(quantize, "__wrapped__", quantize)  # test runs check types first
    with pytest.raises(RecipeError, match="codes of 2 to 8 bits, not 1"):
        unchecked(nets.artifact(), bits=1)


@pytest.mark.parametrize("name", codec.names())
def test_encode_is_lossless_with_every_codec(name: str) -> None:
    before = quantize(nets.artifact())
    done = encode(before, codec=name)
    assert all(isinstance(form, Encoded) for form in done.stored.values())
    assert torch.equal(done.model(nets.images()), before.model(nets.images()))
    assert all(torch.equal(form.decode(), before.stored[key].decode()) for key, form in done.stored.items())


def test_fewer_bits_are_fewer_bytes_once_encoded() -> None:
    sizes = [encode(quantize(nets.artifact(), bits=bits)).nbytes() for bits in (8, 6, 4, 2)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[2] > 0.4 * sum(f.codes.numel() for f in quantize(nets.artifact()).stored.values())


def test_encode_alone_explains_itself() -> None:
    with pytest.raises(RecipeError, match="encode codes integers: put 'quantize' before it in compress"):
        encode(nets.artifact())


def test_an_unknown_codec_is_named() -> None:
    with pytest.raises(RecipeError, match=r"unknown codec 'hufman'\. Did you mean 'huffman'\?"):
        encode(quantize(nets.artifact()), codec="hufman")
