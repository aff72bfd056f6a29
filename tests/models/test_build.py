import pytest
import torch

from distill.errors import ArtifactError, RecipeError
from distill.models.build import build_network, network_entry
from distill.recipe.loading import load
from students import student
from tests.nets import ConvNet

SAMPLES = {"num_classes": 7, "channels": 1}


def test_classes_and_channels_follow_from_the_data() -> None:
    made = network_entry(load("smoke").student, SAMPLES)
    assert made == {"name": "mobilenet_v1", "width": 0.25, "small_images": True, "num_classes": 7, "channels": 1}
    assert build_network(made)(torch.zeros(2, 1, 8, 8)).shape == (2, 7)


def test_torchvisions_networks_are_found_by_name() -> None:
    made = network_entry(load("smoke", ["student={name: efficientnet_b0}"]).student, SAMPLES)
    assert build_network(made)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_a_network_of_the_users_own() -> None:
    recipe = load("smoke", ["student={name: 'tests.nets:ConvNet', arguments: {width: 2}}"])
    made = network_entry(recipe.student, SAMPLES)
    assert made == {"name": "tests.nets:ConvNet", "width": 2, "num_classes": 7, "channels": 1}
    assert isinstance(build_network(made, allow=["tests.nets"]), ConvNet)


def test_code_from_outside_is_only_built_when_allowed() -> None:
    with pytest.raises(ArtifactError, match=r"pass allow=\['tests.nets'\]"):
        build_network({"name": "tests.nets:ConvNet"})


@pytest.mark.parametrize("width", [1e4, 1e6, 1e12])
def test_a_network_too_large_for_memory_is_refused_at_once(width: float) -> None:
    with pytest.raises(RecipeError, match=r"network 'mobilenet_v1' cannot be built: (its parameters take|.*overflow)"):
        build_network({"name": "mobilenet_v1", "num_classes": 10, "width": width})


def test_looking_at_the_size_changes_no_random_number() -> None:
    torch.manual_seed(0)
    built = build_network({"name": "mobilenet_v1", "num_classes": 10})
    torch.manual_seed(0)
    assert all(map(torch.equal, built.parameters(), student.find("mobilenet_v1")(num_classes=10).parameters()))


def test_an_impossible_setting_is_named() -> None:
    with pytest.raises(RecipeError, match="network 'shufflenet_v2' cannot be built: .*0.3"):
        build_network({"name": "shufflenet_v2", "width": 0.3})
