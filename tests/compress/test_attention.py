"""Attention in plain linear layers computes what PyTorch's packed one does, and so runs on integers."""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from distill.artifact import Artifact, open_artifact
from distill.batch import Batch
from distill.compress._attention import PlainAttention, replaceable
from distill.compress.quantization.int8 import int8
from distill.compress.quantization.quantize import quantize
from distill.errors import RecipeError
from tests import families


@settings(max_examples=60, deadline=None)
@given(
    heads=st.sampled_from([1, 2, 4]),
    batch_first=st.booleans(),
    bias=st.booleans(),
    need_weights=st.booleans(),
    averaged=st.booleans(),
    widths=st.sampled_from([(None, None), (6, 10)]),
)
def test_it_computes_what_the_packed_module_does(
    heads: int, batch_first: bool, bias: bool, need_weights: bool, averaged: bool, widths: tuple[int | None, int | None]
) -> None:
    torch.manual_seed(heads)
    keys, values = widths
    packed = nn.MultiheadAttention(8, heads, 0.5, bias=bias, kdim=keys, vdim=values, batch_first=batch_first).eval()
    query, key, value = torch.randn(3, 5, 8), torch.randn(3, 7, keys or 8), torch.randn(3, 7, values or 8)
    if not batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    how = {"need_weights": need_weights, "average_attn_weights": averaged}
    expected, weights = packed(query, key, value, **how)
    found, own_weights = PlainAttention(packed)(query, key, value, **how)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    if need_weights:
        torch.testing.assert_close(own_weights, weights, rtol=1e-4, atol=1e-5)
    else:
        assert own_weights is None


def vit() -> Artifact:
    return Artifact(families.build("vit"), network={"name": "tests.families:vit"})


def batches(side: int = 32) -> list[Batch]:
    images = torch.randn(16, 3, side, side, generator=torch.Generator().manual_seed(3))
    return [Batch(images, torch.arange(16) % 5, torch.arange(16))]


def test_a_transformer_runs_on_integers(tmp_path: object, caplog: pytest.LogCaptureFixture) -> None:
    artifact = vit()
    with caplog.at_level(logging.INFO):
        done = int8(artifact, batches(), lambda model: 1.0)
    # 80,901 parameters, of which biases, norms, the class token and positions are 2,757.
    assert "14 layers on integers, 0 batch norms folded; 3.4 % of the parameters stay in float32" in caplog.text
    assert done.nbytes() < 0.31 * artifact.nbytes()
    images = families.images("vit", 8)
    with torch.no_grad():
        wrong = (done.model(images) - artifact.model(images)).square().mean() / artifact.model(images).square().mean()
    assert wrong.sqrt() < 0.1
    done.save(tmp_path / "student.safetensors")
    loaded = open_artifact(tmp_path / "student.safetensors", allow=["tests.families"])
    assert torch.equal(loaded.model(images), done.model(images))


class Encoder(nn.Module):
    """PyTorch's own encoder layer, which on its fast path calls none of its modules."""

    def __init__(self, *, masked: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, stride=8)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.head = nn.Linear(16, 5)
        self.masked = masked

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT
        mask = torch.ones(16, 16, dtype=torch.bool).triu(1) if self.masked else None
        return self.head(self.layer(tokens, src_mask=mask).mean(1))


def test_pytorchs_encoder_layer_runs_on_integers() -> None:
    torch.manual_seed(0)
    artifact = Artifact(Encoder().eval())
    done = int8(artifact, batches(), lambda model: 1.0)
    assert {name.removesuffix(".weight") for name in done.stored} == {
        "patches",
        *(f"layer.self_attn.{part}_proj" for part in ("q", "k", "v", "out")),
        *("layer.linear1", "layer.linear2", "head"),
    }
    images = families.images("vit", 8)
    with torch.no_grad():
        torch.testing.assert_close(done.model(images), artifact.model(images), rtol=0.1, atol=0.1)


def test_attention_with_masks_is_left_and_said(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = Encoder(masked=True).eval()
    paths, why = replaceable(model, families.images("vit", 1))
    assert (paths, why) == ([], {"layer.self_attn": "attention with masks or extra keys"})
    with caplog.at_level(logging.INFO):
        done = int8(Artifact(model), batches(), lambda model: 1.0)
    assert "1 (attention with masks or extra keys)" in caplog.text
    torch.testing.assert_close(
        done.model(families.images("vit", 2)), model(families.images("vit", 2)), rtol=0.1, atol=0.1
    )


def test_projections_in_codes_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"'int8' would undo how 'encoder\..*in_proj_weight' is stored"):
        int8(quantize(vit(), layers=["*self_attention"]), batches(), lambda model: 1.0)
