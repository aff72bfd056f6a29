"""The reused classifier: what is compared, and that the network which is kept survives being saved and opened."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.artifact import Artifact, open_artifact
from distill.losses.simkd import ReusedClassifier
from distill.models.build import build_network
from distill.models.taps import Taps
from tests.nets import ConvNet, block

SHAPES = (4, 8, 4, 4), (4, 16, 4, 4)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def simkd(student_shape: tuple[int, ...] = SHAPES[0], teacher_shape: tuple[int, ...] = SHAPES[1]) -> ReusedClassifier:
    return ReusedClassifier(student_shape, teacher_shape, ConvNet(width=2), ConvNet())


def trained(loss: ReusedClassifier, student: nn.Module, path: str, images: Tensor) -> Tensor:
    """Let the loss see a batch, so that its batch norms hold something; answers the projected maps, evaluating."""
    _, features = Taps(student, [path])(images)
    loss(features[path], torch.randn_like(loss.projector(features[path])), images)
    loss.eval()
    _, features = Taps(student.eval(), [path])(images)
    return loss.projector(features[path])


def test_simkd_matches_the_definition() -> None:
    loss = simkd().eval()
    student, teacher = (torch.randn(shape) for shape in SHAPES)
    expected = (loss.projector(student) - teacher).square().sum() / teacher.numel()
    torch.testing.assert_close(loss(student, teacher, torch.zeros(4, 1, 32, 32)), expected)


def test_simkd_projects_through_half_the_teachers_channels() -> None:
    kernels = [tuple(m.weight.shape) for m in simkd().projector if isinstance(m, nn.Conv2d)]
    assert kernels == [(8, 8, 1, 1), (8, 8, 3, 3), (16, 8, 1, 1)]


@pytest.mark.parametrize(("ours", "theirs"), [((8, 8), (4, 4)), ((4, 4), (8, 8)), ((8, 4), (4, 8))])
def test_simkd_compares_at_the_smaller_size(ours: tuple[int, int], theirs: tuple[int, int]) -> None:
    loss = simkd((4, 8, *ours), (4, 16, *theirs)).eval()
    student, teacher = torch.randn(4, 8, *ours), torch.randn(4, 16, *theirs)
    layers = [module for module in loss.projector if not isinstance(module, nn.AdaptiveAvgPool2d)]
    projected = nn.Sequential(*layers)(F.adaptive_avg_pool2d(student, (4, 4)))
    expected = F.mse_loss(projected, F.adaptive_avg_pool2d(teacher, (4, 4)))
    torch.testing.assert_close(loss(student, teacher, torch.zeros(4, 1, 32, 32)), expected)


def test_simkd_trains_and_saves_the_projector_alone() -> None:
    loss = simkd()
    assert {name.partition(".")[0] for name in [*loss.state_dict(), *dict(loss.named_parameters())]} == {"projector"}


@pytest.mark.parametrize(
    ("entry", "path", "teacher_shape"),
    [
        ({"name": "shufflenet_v2", "num_classes": 7, "width": 0.5, "small_images": True}, "conv5", (4, 16, 4, 4)),
        ({"name": "resnet20", "num_classes": 7}, "layer3", (4, 16, 2, 2)),
    ],
)
def test_simkd_keeps_a_network_that_is_saved_and_opened(
    entry: dict[str, object], path: str, teacher_shape: tuple[int, ...], tmp_path: Path
) -> None:
    student, teacher, images = build_network(entry), ConvNet(num_classes=7), torch.randn(4, 3, 16, 16)
    _, features = Taps(student, [path])(images)
    loss = ReusedClassifier(tuple(features[path].shape), teacher_shape, student, teacher)
    projected = trained(loss, student, path, images)

    kept, plan = loss.deploy(copy.deepcopy(student), path)
    expected = teacher.head(projected.mean(dim=(2, 3)))
    torch.testing.assert_close(kept(images), expected)

    Artifact(student, network=entry).with_model(kept, plan).save(tmp_path / "student.safetensors")
    assert torch.equal(open_artifact(tmp_path / "student.safetensors").model(images), kept(images))


def test_simkd_counts_projector_and_classifier_as_the_students() -> None:
    loss, student, teacher = simkd(), ConvNet(width=2), ConvNet()
    kept, _ = loss.deploy(copy.deepcopy(student), "stage3")
    sizes = [sum(p.numel() for p in module.parameters()) for module in (kept, student, loss.projector)]
    heads = [sum(p.numel() for p in network.head.parameters()) for network in (teacher, student)]
    assert sizes[0] == sizes[1] + sizes[2] + heads[0] - heads[1]


def test_simkd_reuses_a_classifier_without_bias() -> None:
    teacher = ConvNet()
    teacher.head = nn.Linear(16, 10, bias=False)
    loss = ReusedClassifier(*SHAPES, ConvNet(width=2), teacher)
    kept, _ = loss.deploy(ConvNet(width=2), "stage3")
    assert kept.head.bias is None
    assert torch.equal(kept.head.weight, teacher.head.weight)


@pytest.mark.parametrize("channels", [16, 8], ids=["of another number of channels", "of as many channels"])
def test_simkd_refuses_a_student_that_changes_the_map_before_its_classifier(channels: int) -> None:
    student, images = ConvNet(width=2), torch.randn(4, 1, 32, 32)
    student.stage3 = nn.Sequential(block(4, 8), nn.BatchNorm2d(8))
    nn.init.normal_(student.stage3[1].running_mean)
    teacher = ConvNet(width=channels // 4)
    loss = ReusedClassifier(SHAPES[0], (4, channels, 4, 4), student, teacher)
    trained(loss, student, "stage3.0", images)
    with pytest.raises(ValueError, match=r"between 'stage3\.0' and 'head' the student does more than average"):
        loss.deploy(copy.deepcopy(student), "stage3.0")


def test_simkd_refuses_a_tap_that_the_students_classifier_does_not_read() -> None:
    with pytest.raises(ValueError, match="'head' of ConvNet reads 8 features and the tap has 4 channels"):
        simkd((4, 4, 8, 8))


def test_simkd_refuses_a_teacher_of_other_classes() -> None:
    with pytest.raises(ValueError, match="of 12 classes, for a task of 10"):
        ReusedClassifier(*SHAPES, ConvNet(width=2), ConvNet(num_classes=12))


def test_simkd_refuses_vectors() -> None:
    with pytest.raises(ValueError, match="simkd compares maps, but a tap has shape"):
        simkd((4, 8))
