"""Rows of bytes give back the outputs that were encoded, up to what the coding states."""

import pytest
import torch
from torch import Tensor

from distill.errors import RecipeError
from distill.training.cache._coding import Coding, coding, coding_for


def back(answers: Tensor, kept: str = "float32", top_k: int | None = None) -> Tensor:
    """Encoded and decoded, by way of what is written beside the rows."""
    form: Coding = coding(coding_for(answers, kept, top_k).to_json())
    rows = form.encode(answers)
    assert rows.shape == (len(answers), form.nbytes)
    return form.decode(rows, answers.device)


class TestCoding:
    @pytest.mark.parametrize("shape", [(3, 4, 5, 6), (3, 7), (3, 5, 7), (3,)])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_nothing_is_lost_in_32_bits(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        answers = torch.randn(shape).to(dtype)
        assert torch.equal(back(answers), answers)
        assert back(answers).dtype == dtype

    @pytest.mark.parametrize("form", [torch.channels_last, torch.contiguous_format])
    def test_the_layout_stays(self, form: torch.memory_format) -> None:
        answers = torch.randn(3, 4, 5, 6).to(memory_format=form)
        assert back(answers, "float16").stride() == answers.stride()

    @pytest.mark.parametrize("top_k", [None, 2])
    def test_what_16_bits_cannot_hold_is_refused(self, top_k: int | None) -> None:
        with pytest.raises(RecipeError, match=r"they reach 1e\+05, more than float16 holds: set cache.dtype=float32"):
            back(torch.tensor([[1.0, 2.0, 1e5]]), "float16", top_k)
        assert back(torch.tensor([[1.0, torch.inf]]), "float16").isinf().sum() == 1

    @pytest.mark.parametrize(("kept", "tolerance"), [("float32", 1e-5), ("float16", 2e-2)])
    @pytest.mark.parametrize("classes", [12, 40_000])
    def test_top_k_keeps_the_largest_probabilities(self, kept: str, tolerance: float, classes: int) -> None:
        logits = 5 * torch.randn(4, classes)
        probabilities, read = logits.double().softmax(1), back(logits, kept, 3).double().softmax(1)
        for row in range(4):
            order = probabilities[row].argsort(descending=True)
            for label in order[:3]:
                assert read[row, label].item() == pytest.approx(probabilities[row, label].item(), rel=tolerance)
            left = probabilities[row, order[3:]].sum().item()
            others = read[row, order[3:]]
            assert others.max() == others.min()
            assert others[0].item() == pytest.approx(left / (classes - 3), rel=tolerance)

    @pytest.mark.parametrize(("shape", "k"), [((2, 4, 3, 3), 2), ((2, 4), 4)])
    def test_top_k_is_for_logits_of_more_classes(self, shape: tuple[int, ...], k: int) -> None:
        with pytest.raises(
            RecipeError, match=f"cache.top_k={k} needs a row of more than {k} logits.* set cache.top_k=null"
        ):
            back(torch.randn(shape), top_k=k)

    def test_a_tap_has_one_shape(self) -> None:
        form = coding_for(torch.randn(2, 4), "float32", None)
        with pytest.raises(RecipeError, match=r"of shape \(4,\) and \(5,\)"):
            form.encode(torch.randn(2, 5))
