"""What every hook must do."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from distill.artifact import Artifact, open_artifact
from distill.compress import hook
from distill.compress._contract import call_hook
from distill.errors import RecipeError, TrainingError
from distill.models.surgery import deployable
from distill.recipe.schema import Hook
from distill.registry import injected, options, schema
from tests.compress import nets

every_hook = pytest.mark.parametrize("name", hook.names())
AFTER = {"encode": ["quantize"]}
"""What a hook needs before it."""
SETTINGS = {"guided_sparsity": {"bandwidth": 1e12}}
"""Without which a hook finds nothing to do in so small a network."""
READERS = {"prune_channels": {"kernel.weight"}}
"""What else changes when 'point' does."""

WHOLE = {"deep_rebirth", "nested_level"}
"""Those that have nothing to do at 'point' alone."""


def apply(name: str, artifact: Artifact, **settings: object) -> Artifact:
    component = hook.find(name)
    injectable = {
        "artifact": artifact,
        "calibration": nets.calibration(),
        "evaluate": nets.anything,
        "progress": 1.0,
        "task_loss": nets.task_loss,
    }
    chosen = {**settings, **SETTINGS.get(name, {})}
    return call_hook(name, lambda: component(*(injectable[need] for need in injected(component)), **chosen), artifact)


def prepared(name: str) -> Artifact:
    artifact = nets.artifact()
    for before in AFTER.get(name, []):
        artifact = apply(before, artifact)
    return artifact


@every_hook
def test_its_input_stays_as_it_was(name: str) -> None:
    artifact = prepared(name)
    content, stored = artifact.to_bytes(), dict(artifact.stored)
    apply(name, artifact)
    assert artifact.to_bytes() == content
    assert artifact.stored == stored


@every_hook
def test_it_is_reproducible_and_draws_no_random_numbers(name: str) -> None:
    artifact = prepared(name)
    before = torch.get_rng_state()
    content = apply(name, artifact).to_bytes()
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert apply(name, artifact).to_bytes() == content


@every_hook
def test_it_makes_the_file_smaller(name: str) -> None:
    artifact = prepared(name)
    assert apply(name, artifact).nbytes() < artifact.nbytes()


@every_hook
def test_the_model_computes_with_what_is_stored(name: str) -> None:
    done = apply(name, prepared(name))
    parameters = dict(done.model.named_parameters())
    assert all(torch.equal(form.decode(), parameters[key]) for key, form in done.stored.items())
    assert not done.model.training


@every_hook
def test_a_loaded_network_computes_exactly_the_same(name: str, tmp_path: pytest.TempPathFactory) -> None:
    done = apply(name, prepared(name))
    size = done.save(tmp_path / "student.safetensors")
    loaded = open_artifact(tmp_path / "student.safetensors", allow=nets.ALLOW)
    assert size == done.nbytes() == loaded.nbytes()
    assert torch.equal(loaded.model(nets.images()), done.model(nets.images()))
    assert loaded.plans == done.plans
    assert loaded.stored.keys() == done.stored.keys()


@every_hook
def test_its_deployable_form_computes_the_same(name: str) -> None:
    model = apply(name, prepared(name)).model
    torch.testing.assert_close(deployable(model)(nets.images()), model(nets.images()), rtol=1e-5, atol=1e-5)


@every_hook
def test_a_recipe_may_set_all_of_it(name: str) -> None:
    component = hook.find(name)
    settings = options(component, schema(component, Hook)(name=name))
    assert apply(name, prepared(name), **settings).to_bytes() == apply(name, prepared(name)).to_bytes()


@every_hook
def test_encode_is_the_last(name: str) -> None:
    encoded = apply("encode", apply("quantize", nets.artifact()))
    with pytest.raises(RecipeError, match=f"'{name}' after 'encode' would undo it: put 'encode' last"):
        apply(name, encoded)


@pytest.mark.parametrize("name", sorted(set(hook.names()) - {"encode"}))
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(name: str, broken: float) -> None:
    artifact = nets.artifact()
    artifact.model.point.weight.data[3, 2] = broken
    with pytest.raises(TrainingError, match=rf"{name}: 1 of 288 values of 'point\.weight' are not finite"):
        apply(name, artifact)


@pytest.mark.parametrize("name", sorted(set(hook.names()) - {"encode", *WHOLE}))
def test_layers_are_chosen_by_globs(name: str) -> None:
    artifact = nets.artifact()
    done = apply(name, artifact, layers=["poi*"])
    changed = set(done.stored) | {f"{path}.weight" for plan in done.plans for path in plan.layers}
    assert changed == {"point.weight"} | READERS.get(name, set())
    with pytest.raises(RecipeError, match=r"no layer to compress matches 'pont'\. Did you mean 'point'\?"):
        apply(name, artifact, layers=["point", "pont"])


def weights(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.dim() > 1)


@pytest.mark.parametrize("finetune", [lambda done: done, "train"])
def test_all_in_a_row(finetune: Callable[[Artifact], Artifact] | str, tmp_path: pytest.TempPathFactory) -> None:
    from distill.artifact.straight_through import finalize, trainable

    def recover(done: Artifact) -> Artifact:
        return finalize(done, nets.train(trainable(done))) if finetune == "train" else done

    done, sizes = nets.artifact(), []
    for name, settings in (
        ("svd", {"max_error": 0.4, "layers": ["kernel", "stem"]}),
        ("tensor_train", {"max_error": 0.6, "layers": ["point", "head"]}),
        ("prune", {"sparsity": 0.6, "saliency": "taylor"}),
        ("quantize", {}),
    ):
        done = recover(apply(name, done, **settings))
        sizes.append(done.nbytes())
    done = apply("encode", done)
    sizes.append(done.save(tmp_path / "student.safetensors"))
    loaded = open_artifact(tmp_path / "student.safetensors", allow=nets.ALLOW)
    assert sizes == sorted(sizes, reverse=True)
    assert sum(int((p == 0).sum()) for p in loaded.model.parameters()) >= round(0.6 * weights(loaded.model))
    assert torch.equal(loaded.model(nets.images()), done.model(nets.images()))
    assert loaded.model.state_dict().keys() == done.model.state_dict().keys()
    assert [plan.hook for plan in loaded.plans] == ["svd", "tensor_train"]
    assert loaded.to_bytes() == done.to_bytes()
