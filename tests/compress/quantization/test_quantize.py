"""Quantize and encode: codes of all weights, then few bits for them."""

import pytest
import torch
from torch import nn

from distill.artifact import Artifact
from distill.artifact.storage import Encoded
from distill.codecs import codec
from distill.compress.encode import encode
from distill.compress.quantization._quantized import Quantized
from distill.compress.quantization.quantize import quantize
from distill.errors import RecipeError
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
    done = quantize(nets.artifact(), bits=bits, symmetric=True)
    for name, axis in (("stem.weight", 0), ("depthwise.weight", 0), ("up.weight", 1), ("head.weight", 0)):
        form = done.stored[name]
        assert isinstance(form, Quantized)
        assert (form.axis, form.bits) == (axis, bits)
        assert form.codes.abs().amax([a for a in range(form.codes.dim()) if a != axis]).eq(2 ** (bits - 1) - 1).all()


def test_codes_are_a_quarter_of_the_weights() -> None:
    linear = nn.Linear(256, 128, bias=False)
    assert sum(form.nbytes() for form in quantize(Artifact(linear)).stored.values()) == 256 * 128 + 3 * 128


def test_quantizing_again_changes_nothing() -> None:
    once = quantize(nets.artifact(), symmetric=True)
    assert quantize(once, symmetric=True).to_bytes() == once.to_bytes()


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_finer_scales_err_less(granularity: str, symmetric: bool) -> None:
    artifact = nets.artifact()
    weight = artifact.model.kernel.weight.data
    weight *= torch.logspace(-1, 0, 12)[:, None, None, None]

    def error(**settings: object) -> float:
        form = quantize(artifact, bits=3, symmetric=symmetric, layers=["kernel"], **settings).stored["kernel.weight"]
        return float((form.decode() - weight).norm())

    assert error(granularity=granularity, scale="mse") < error(granularity=granularity, scale="max")
    assert error(granularity="group", group_size=8) < error(granularity="channel") < error(granularity="tensor")


def test_a_default_that_learns_needs_calibration_and_few_bits() -> None:
    artifact, batches = nets.artifact(), nets.calibration()
    by_default = {bits: quantize(artifact, batches, bits=bits, layers=["point"]).to_bytes() for bits in (4, 8)}
    learned = quantize(artifact, batches, bits=4, rounding="adaround", scale="mse", layers=["point"])
    assert by_default[4] == learned.to_bytes()
    assert by_default[8] == quantize(artifact, layers=["point"]).to_bytes()
    with pytest.raises(
        RecipeError, match="quantize needs calibration batches for mean_bits, adaround and bias_correction"
    ):
        quantize(artifact, rounding="adaround")


def test_corrected_biases_keep_the_mean_output_of_each_channel() -> None:
    artifact, batches, paths = nets.artifact(), nets.calibration(), ["depthwise", "kernel", "head"]
    done = quantize(artifact, batches, bits=3, rounding="nearest", bias_correction=True, layers=paths)
    plain = quantize(artifact, bits=3, layers=paths)
    shifts = {}
    for name, net in (("exact", artifact.model), ("corrected", done.model), ("plain", plain.model)):
        outputs = {}
        for path in paths:
            net.get_submodule(path).register_forward_hook(
                lambda layer, inputs, output, path=path, outputs=outputs: outputs.update({path: output.detach()})
            )
        net(batches[0].inputs)
        shifts[name] = {path: output.transpose(0, 1).flatten(1).mean(1) for path, output in outputs.items()}
    for path in paths:
        assert torch.allclose(shifts["corrected"][path], shifts["exact"][path], atol=1e-5)
        assert not torch.allclose(shifts["plain"][path], shifts["exact"][path], atol=1e-3)


@pytest.mark.parametrize(("asked", "possible"), [(1.9, 2), (8.5, 8)])
def test_a_budget_that_cannot_be_met_names_the_nearest(asked: float, possible: int) -> None:
    with pytest.raises(RecipeError, match=f"mean_bits={asked} cannot be, but {possible} can"):
        quantize(nets.artifact(), nets.calibration(), mean_bits=asked)


def test_a_group_is_at_least_one_value() -> None:
    with pytest.raises(RecipeError, match="a group_size of at least 1, not 0"):
        quantize(nets.artifact(), granularity="group", group_size=0)


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
