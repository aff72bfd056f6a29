"""Networks for optical flow: counts, correlation against its definition, levels, export."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from distill.export.onnx_file import answer, serialize, session
from distill.models.auxiliary import auxiliary_weights
from distill.models.surgery import deployable
from distill.models.taps import Taps
from students import student
from students._flow import Correlation, Siamese
from students.pwc import warped

NAMES = ("flow_correlation", "flow_correlation_light", "pwc_light")
PUBLISHED = ("flownet_s", "flownet_c")


def build(name: str, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return student.find(name)(**settings)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "size", "params", "gmacs", "products"),
    [
        ("flownet_s", (448, 448), 38_675_546, 16.1, 0),
        # 21 rows of displacements, 48 x 64 places in blocks of 20 columns of every second one, which 64 fill to 80;
        # products with 40 columns each, 21 of which are kept, of 256 channels.
        ("flownet_c", (384, 512), 39_175_298, 22.4, 21 * 48 * 80 * 40 * 256),
    ],
)
def test_published_counts(name: str, size: tuple[int, int], params: int, gmacs: float, products: int) -> None:
    with torch.device("meta"):
        network, images = build(name).eval(), torch.empty(1, 6, *size)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            output = network(images)
    assert sum(parameter.numel() for parameter in network.parameters()) == params
    assert (counter.get_total_flops() / 2 - products) / 1e9 == pytest.approx(gmacs, abs=0.05)
    assert output.shape == (1, 2, size[0] // 4, size[1] // 4)


COUNTS = {"flow_correlation": 794_584, "flow_correlation_light": 36_178, "pwc_light": 31_856}
"""Our own, which docs/tasks/flow.md tells; torchvision's are those of its weights' metadata."""
COUNTS |= {"raft_small": 990_162, "raft_large": 5_257_536}


@pytest.mark.parametrize(("name", "params"), COUNTS.items())
def test_counts_of_networks_that_are_named_in_the_docs(name: str, params: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in build(name).parameters()) == params


@pytest.mark.parametrize(("displacement", "stride"), [(1, 1), (3, 1), (4, 2), (20, 2)])
def test_correlation_by_its_definition(displacement: int, stride: int) -> None:
    first, second = noise(2, 5, 4, 7), noise(2, 5, 4, 7, seed=1)
    found = Correlation(displacement, stride)(torch.cat([first, second], dim=1))
    first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
    steps = range(-displacement, displacement + 1, stride)
    assert found.shape == (2, len(steps) ** 2, 4, 7)
    for channel, (dy, dx) in enumerate((dy, dx) for dy in steps for dx in steps):
        for y in range(4):
            for x in range(7):
                inside = 0 <= y + dy < 4 and 0 <= x + dx < 7
                expected = (first[..., y, x] * second[..., y + dy, x + dx]).sum(1) if inside else torch.zeros(2)
                torch.testing.assert_close(found[:, channel, y, x], expected)


def test_both_images_get_the_same_layers() -> None:
    layers = nn.Conv2d(3, 4, 3)
    first, second = noise(2, 3, 8, 8), noise(2, 3, 8, 8, seed=1)
    found = Siamese(layers)(torch.cat([first, second], dim=1))
    torch.testing.assert_close(found, torch.cat([layers(first), layers(second)], dim=1))


def test_warping_undoes_a_shift() -> None:
    features = noise(1, 3, 8, 10)
    flow = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 8, 10)
    moved = features.roll((-1, 2), dims=(2, 3))
    torch.testing.assert_close(warped(moved, flow)[..., 1:, :-2], features[..., 1:, :-2])


@pytest.mark.parametrize("name", [*NAMES, *PUBLISHED])
def test_levels_from_coarse_to_fine_are_named_and_weighted(name: str) -> None:
    if name in PUBLISHED:
        with torch.device("meta"):
            network, images = build(name), torch.empty(2, 6, 128, 192)
            output, features = Taps(network, network.stages)(images)
    else:
        network = build(name)
        output, features = Taps(network, network.stages)(noise(2, 6, 64, 96))
        (output.square().mean() + sum(feature.square().mean() for feature in features.values())).backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())
    levels = list(auxiliary_weights(network))
    sizes = [features[level].shape[-1] for level in levels] + [output.shape[-1]]
    assert sizes == [output.shape[-1] >> step for step in range(len(levels), -1, -1)]
    assert all(features[level].shape[:2] == (2, 2) for level in levels)
    assert [features[stage].shape[0] for stage in network.stages] == [2] * len(network.stages)


@pytest.mark.parametrize("name", [*NAMES, *PUBLISHED])
def test_images_of_any_size(name: str) -> None:
    with torch.device("meta"):
        network = build(name).eval()
        assert network(torch.empty(1, 6, 100, 132)).shape == (1, 2, 25, 33)


@pytest.mark.parametrize("name", [*NAMES, *PUBLISHED])
def test_wrong_settings_are_named(name: str) -> None:
    with torch.device("meta"):
        with pytest.raises(ValueError, match="3 channels together"):
            build(name, channels=3)
        with pytest.raises(ValueError, match=r"level_weights is \[1.0\], but .* flow5"):
            build(name, level_weights=[1.0])
        assert build(name, channels=2).eval()(torch.empty(1, 2, 64, 64)).shape == (1, 2, 16, 16)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_it_computes_the_same_in_onnx_for_any_batch_and_size(name: str) -> None:
    network = build(name).eval()
    file = session(serialize(deployable(network), noise(2, 6, 64, 64), any_size=True), threads=1)
    for batch in (noise(1, 6, 64, 64), noise(3, 6, 100, 132, seed=2)):
        torch.testing.assert_close(answer(file, batch), network(batch), rtol=1e-3, atol=1e-3)
