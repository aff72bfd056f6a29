"""NestedNet: levels lie inside each other, train as one, and may tell fewer classes apart."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.batch import Batch
from distill.losses.structure.nestednet import NestedNet, masked
from distill.models.channels.nested import Nest
from distill.recipe.loading import load
from distill.recipe.plain import resolved
from tests.compress.structure.nested import Deep, batch, weights, with_masks
from tests.nets import ConvNet

nests = pytest.mark.parametrize("nest", ["channels", "connections", "layers"])


def labelled(classes: int) -> Batch:
    data = batch(1)
    return data._replace(labels=data.labels % classes)


def net(nest: Nest) -> nn.Module:
    return Deep() if nest == "layers" else ConvNet(width=8)


@nests
def test_levels_lie_inside_each_other_in_every_step(nest: Nest) -> None:
    model, data = net(nest), labelled(4)
    loss = NestedNet(model, levels=[0.75, 0.25, 0.5], nest=nest)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        loss(model(data.inputs), data.labels, data.inputs).backward()
        optimizer.step()
        small, middle, large = loss.masks(data.inputs)
        for name, mask in middle.items():
            assert (small[name] <= mask).all()
            assert (mask <= large[name]).all()
            assert nest == "layers" or small[name].sum() < mask.sum() < large[name].sum()
        assert weights(small) < weights(middle) < weights(large)


@nests
def test_what_is_outside_a_level_does_not_change_it(nest: Nest) -> None:
    model, data = net(nest).eval(), batch(1)
    loss = NestedNet(model, nest=nest)
    smallest = {name: mask.clone() for name, mask in loss.masks(data.inputs)[0].items()}
    before, whole = masked(model, smallest, data.inputs), model(data.inputs)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in smallest:
                parameter.copy_(torch.where(smallest[name], parameter, 3 * torch.randn_like(parameter)))
    assert torch.equal(masked(model, smallest, data.inputs), before)
    assert not torch.allclose(model(data.inputs), whole)


def test_the_value_is_the_mean_over_all_levels_and_leaves_statistics_alone() -> None:
    model, data = ConvNet(width=8).eval(), batch(1)
    loss = NestedNet(model, levels=[0.5])
    output = model(data.inputs)
    half = with_masks(loss, model, 0.5, data.inputs)(data.inputs)
    expected = (F.cross_entropy(output, data.labels) + F.cross_entropy(half, data.labels)) / 2
    torch.testing.assert_close(loss(output, data.labels, data.inputs), expected)
    statistics = copy.deepcopy(dict(model.named_buffers()))
    model.train()
    loss(output, data.labels, data.inputs)
    assert all(torch.equal(value, statistics[name]) for name, value in model.named_buffers())


def test_inner_networks_learn_from_the_whole_ones_soft_targets() -> None:
    model, data = ConvNet(width=8).eval(), batch(1)
    output = model(data.inputs)
    plain, taught = (
        NestedNet(model, levels=[0.5], soft=soft, temperature=2.0)(output, data.labels, data.inputs) for soft in (0, 3)
    )
    half = with_masks(NestedNet(model, levels=[0.5]), model, 0.5, data.inputs)(data.inputs)
    told, heard = (logits.div(2).softmax(1) for logits in (output, half))
    divergence = (told * (told / heard).log()).sum(1).mean()
    torch.testing.assert_close(taught - plain, 3 * 2**2 * divergence / 2)
    # The whole network learns from labels alone, though a level's weights are its own too.
    output = output.detach().requires_grad_()
    NestedNet(model, levels=[0.5], soft=3)(output, data.labels, data.inputs).backward()
    alone = output.detach().requires_grad_()
    (F.cross_entropy(alone, data.labels) / 2).backward()
    torch.testing.assert_close(output.grad, alone.grad)


GROUPS = [[0, 2, 4, 6, 8], [1, 3], [9, 5, 7]]


@pytest.mark.parametrize("soft", [0.0, 2.0])
def test_a_coarse_level_is_asked_for_groups_of_classes(soft: float) -> None:
    model, data = ConvNet(width=8).eval(), batch(1)
    output = model(data.inputs)
    half = with_masks(NestedNet(model, levels=[0.5]), model, 0.5, data.inputs)(data.inputs)

    def summed(logits: Tensor, temperature: float) -> Tensor:
        probabilities = (logits / temperature).softmax(1)
        return torch.stack([probabilities[:, group].sum(1) for group in GROUPS], 1)

    label = torch.tensor([next(n for n, group in enumerate(GROUPS) if label in group) for label in data.labels])
    expected = -summed(half, 1)[range(8), label].log().mean()
    told, heard = summed(output, 3), summed(half, 3)
    expected = expected + soft * 9 * (told * (told / heard).log()).sum(1).mean()
    loss = NestedNet(model, levels=[0.5], coarse={0.5: GROUPS}, soft=soft, temperature=3.0)
    value = loss(output, data.labels, data.inputs)
    torch.testing.assert_close(value, (F.cross_entropy(output, data.labels) + expected) / 2)


def test_groups_that_do_not_fit_are_refused() -> None:
    model, data = ConvNet().eval(), batch(1)
    with pytest.raises(ValueError, match=r"coarse classes are of levels \[0.3\], but there are \[0.25, 0.5\]"):
        NestedNet(model, coarse={0.3: GROUPS})
    for groups in ([[0, 1], [2, 3]], [*GROUPS, []], [*GROUPS, [0]]):
        with pytest.raises(ValueError, match="each of the classes 0 to 9 once"):
            NestedNet(model, coarse={0.5: groups})(model(data.inputs), data.labels, data.inputs)


def test_a_recipe_may_set_groups(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"""
task: {{name: classification}}
data: {{name: digits}}
student: {{name: resnet20}}
stages: {{nested: {{epochs: 1, losses: {{nestednet: {{nest: layers, coarse: {{0.5: {GROUPS}}}}}}}}}}}
""")
    assert load(str(path)).stages["nested"].losses["nestednet"].coarse == {0.5: GROUPS}
    path.write_text(resolved(load(str(path))))
    assert load(str(path)).stages["nested"].losses["nestednet"].coarse == {0.5: GROUPS}
