"""Groups that 1x1 convolutions learn in one round and are cut into in the next."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

import students
from distill.artifact import Artifact, open_artifact
from distill.artifact.sparse import Sparse
from distill.artifact.straight_through import finalize, trainable
from distill.compress import hook
from distill.errors import RecipeError, TrainingError
from distill.models import cost
from students.flgc import GroupedConv, LearnedGroupConv
from tests.compress import nets

flgc = hook.find("flgc")


def trained(artifact: Artifact) -> Artifact:
    return finalize(artifact, nets.train(trainable(artifact)))


def test_groups_are_learned_first_and_cut_last(tmp_path: Path) -> None:
    start = nets.artifact()
    learning = trained(flgc(start, 0.5, groups=3))
    layer = learning.model.point
    assert isinstance(layer, LearnedGroupConv)
    learning.save(tmp_path / "learning.safetensors")
    learning = open_artifact(tmp_path / "learning.safetensors", allow=nets.ALLOW)
    done = flgc(learning, 1.0, groups=3)
    assert isinstance(done.model.point, GroupedConv)
    assert [plan.layers for plan in done.plans] == [{"point": {"groups": 3}}, {"point": layer.assignments()}]
    torch.testing.assert_close(done.model(nets.images()), learning.model(nets.images()), rtol=1e-5, atol=1e-5)
    assert cost.params(done.model) < cost.params(start.model) < cost.params(learning.model)
    done = trained(done)
    done.save(tmp_path / "done.safetensors")
    loaded = open_artifact(tmp_path / "done.safetensors", allow=nets.ALLOW)
    assert torch.equal(loaded.model(nets.images()), done.model(nets.images()))


def test_a_round_between_goes_on_learning() -> None:
    learning = flgc(nets.artifact(), 1 / 3)
    assert flgc(learning, 2 / 3) is learning


def test_the_first_groups_follow_from_the_seed() -> None:
    groups = [flgc(nets.artifact(), seed=seed).plans for seed in (0, 0, 1)]
    assert groups[0] == groups[1] != groups[2]


def test_what_a_network_learns_by_itself_is_cut_and_nothing_else() -> None:
    torch.manual_seed(0)
    entry = {"name": "flgc_mobilenet_v2", "width": 0.25, "small_images": True, "num_classes": 10}
    model = students.flgc_mobilenet_v2(width=0.25, small_images=True, num_classes=10).eval()
    done = flgc(Artifact(model, network=entry))
    assert {path for path, m in done.model.named_modules() if isinstance(m, GroupedConv)} == {
        path for path, m in model.named_modules() if isinstance(m, LearnedGroupConv)
    }
    images = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(done.model(images), model(images), rtol=1e-5, atol=1e-5)
    with pytest.raises(RecipeError, match="'features.1.conv.1' still learns its groups: put 'flgc', which makes them"):
        hook.find("int8")(Artifact(model, network=entry), nets.calibration(3, 16, 16), nets.anything)


def test_names_are_no_globs() -> None:
    model = nn.Sequential(OrderedDict({"stem": nn.Conv2d(1, 8, 3), "[ab]": nn.Conv2d(8, 8, 1)}))
    assert "[ab]" in flgc(Artifact(model, network={"name": "none"}), 0.5).plans[0].layers


def test_a_network_without_1x1_convolutions_stays_as_it_is() -> None:
    artifact = Artifact(nn.Sequential(nn.Conv2d(1, 4, 3)), network={"name": "none"})
    assert flgc(artifact) is artifact
    assert flgc(artifact, 0.5) is artifact


def test_mistakes_are_named() -> None:
    artifact = nets.artifact()
    with pytest.raises(RecipeError, match="groups is 1, but flgc makes at least 2"):
        flgc(artifact, groups=1)
    learning = flgc(artifact, 0.5)
    pruned = Artifact(
        learning.model,
        {"point.weight": Sparse.of(learning.model.point.weight.detach(), learning.model.point.weight > 0)},
        network=nets.ENTRY,
    )
    with pytest.raises(RecipeError, match="'flgc' would lose the zeros of 'point': put it before 'prune'"):
        flgc(pruned)
    learning.model.point.weight.data[0, 0] = torch.nan
    with pytest.raises(TrainingError, match=r"flgc: 1 of 288 values of 'point\.weight' are not finite"):
        flgc(learning)
