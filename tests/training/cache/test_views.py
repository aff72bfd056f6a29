"""Views of images repeat as a cache needs it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from distill.data import DataInfo
from distill.data.digits import Digits
from distill.errors import RecipeError
from distill.training.cache import set_views
from tests.training.cache.behind import behind, epochs


class Foreign:
    """A data module without views."""

    info, batch_size, samples = DataInfo(1, (8, 8), (0.0,), (1.0,), ("a", "b")), 4, 8

    def train_dataloader(self) -> None: ...

    val_dataloader = test_dataloader = train_labels = calibration = fingerprint = train_dataloader


class TestViews:
    def test_they_repeat_after_as_many_epochs_and_not_before(self) -> None:
        data = Digits(0, limit=60, batch_size=16)
        data.views = 3
        seen: list[dict[int, Tensor]] = []
        for epoch in range(6):
            batches = list(epochs(data, epoch, epoch + 1))
            assert {batch.view for batch in batches} == {epoch % 3}
            seen.append({s: x for b in batches for s, x in zip(b.sample.tolist(), b.inputs, strict=True)})
        for epoch in range(3):
            both = seen[epoch].keys() & seen[epoch + 3].keys()
            assert all(torch.equal(seen[epoch][sample], seen[epoch + 3][sample]) for sample in both)
        both = seen[0].keys() & seen[1].keys()
        assert sum(torch.equal(seen[0][sample], seen[1][sample]) for sample in both) < len(both) / 2

    def test_batches_are_still_shuffled_anew(self) -> None:
        data = Digits(0, limit=60, batch_size=16)
        data.views = 1
        first, second = ([b.sample.tolist() for b in epochs(data, epoch, epoch + 1)] for epoch in (0, 1))
        assert first != second

    def test_every_view_of_every_sample_comes_once(self) -> None:
        data = Digits(0, limit=60, batch_size=16)
        data.views = 2
        listed = [(batch.view, sample) for batch in data.every_view() for sample in batch.sample.tolist()]
        assert sorted(listed) == [(view, sample) for view in (0, 1) for sample in range(54)]
        shown = {(b.view, s): x for b in data.every_view() for s, x in zip(b.sample.tolist(), b.inputs, strict=True)}
        for batch in epochs(data, 0, 2):
            assert all(torch.equal(shown[batch.view, s], x) for s, x in zip(batch.sample.tolist(), batch.inputs))

    def test_evaluation_shows_none(self) -> None:
        data = Digits(0, limit=60)
        assert {batch.view for batch in [*data.val_dataloader(), *data.calibration(8)]} == {None}

    def test_a_data_set_that_promises_none_is_refused(self) -> None:
        with pytest.raises(RecipeError, match="Foreign does not promise that its augmentations repeat"):
            set_views(Foreign(), 2)
        set_views(Foreign(), None)

    def test_a_batch_that_does_not_say_its_view_is_refused(self, tmp_path: Path) -> None:
        teacher, data = behind(tmp_path)
        for view in (None, 2):
            with pytest.raises(RecipeError, match=f"shows view {view}, where there are 2"):
                teacher(next(epochs(data, 0, 1))._replace(view=view))
