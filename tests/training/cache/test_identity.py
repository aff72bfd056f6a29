"""A cache of something else is refused, by the name of what differs."""

from pathlib import Path
from typing import Any

import pytest

from distill.errors import RecipeError
from distill.models.input_transform import InputTransform
from distill.recipe.loading import load
from distill.training.cache._identity import fingerprint
from distill.training.ensemble import Ensemble
from tests.training.cache.behind import behind, filled, network


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "what"),
        [
            ({"weights": 1}, "teacher is"),
            ({"cache": "views: 3, dtype: float32"}, "cache.views is 3, there 2"),
            ({"cache": "views: 2"}, "cache.dtype is float16, there float32"),
            ("data.limit=50", "data is"),
            ("data.val=0.2", "data is"),
            ("data.crop=0", "data.crop is 0, there 1"),
            ("seed=1", "seed is 1, there 0"),
            ("trainer={precision: bf16-mixed}", "trainer.precision is bf16-mixed, there 32-true"),
        ],
    )
    def test_the_cache_of_something_else(self, changes: Any, what: str, tmp_path: Path) -> None:
        filled(tmp_path)
        overrides, settings = ([changes], {}) if isinstance(changes, str) else ([], changes)
        with pytest.raises(RecipeError, match=f"the cache in {tmp_path} is of something else .*{what}"):
            behind(tmp_path, *overrides, **settings)

    def test_a_folder_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(RecipeError, match="is no cache, but holds 'thesis.tex'"):
            behind(tmp_path)

    def test_a_folder_in_the_place_of_the_header(self, tmp_path: Path) -> None:
        filled(tmp_path)
        (tmp_path / "cache.json").unlink()
        (tmp_path / "cache.json").mkdir()
        with pytest.raises(RecipeError, match="cache.json is a folder, so this is no cache"):
            behind(tmp_path)

    def test_a_header_of_another_program(self, tmp_path: Path) -> None:
        (tmp_path / "cache.json").write_text('{"entries": 3}')
        with pytest.raises(RecipeError, match="is no cache, but holds 'cache.json'"):
            behind(tmp_path)

    @pytest.mark.parametrize(
        ("overrides", "complaint"),
        [
            (["cache={views: 0}"], "at cache.views: views is 0, but must be at least 1"),
            (["cache={top_k: 0}"], "at cache.top_k: top_k is 0, but must be at least 1"),
            (["cache={dtype: float8}"], "at cache.dtype: 'float8' is not one of float16, float32"),
            (["cache={}", "stages.distill.teacher_bn=train"], "at stages.distill: .*depends on the batch around it"),
            (["cache={}", "compress.svd.finetune.teacher_bn=train"], "at compress.svd.finetune: "),
            (["cache={}", "teacher=null", "stages={only: {epochs: 1}}"], "cache: there is no teacher"),
        ],
    )
    def test_recipes_that_cannot_be(self, overrides: list[str], complaint: str) -> None:
        with pytest.raises(RecipeError, match=complaint):
            load("smoke", overrides)

    def test_weights_structure_and_own_images_make_a_teacher(self) -> None:
        assert fingerprint(network()) == fingerprint(network())
        others = [network(1), network(), network(), network(), network()]
        others[1].stage1[1].running_mean += 1
        others[2].stage1[3].kernel_size = 3
        for other, std in zip(others[3:], (0.5, 0.6), strict=True):
            other.register_forward_pre_hook(InputTransform([0.0], [1.0], [0.5], [std]))
        assert len({fingerprint(each) for each in (network(), *others)}) == 6

    def test_an_ensemble_is_its_members_and_their_weights(self) -> None:
        both = {"a": network(0), "b": network(1)}
        weights = [{"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 2.0}, {"a": 2.0, "b": 2.0}]
        assert len({fingerprint(Ensemble(both, each)) for each in weights}) == 2
