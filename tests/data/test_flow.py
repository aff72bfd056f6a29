"""Flow goes along with its pictures: what it says is still where its pixels moved to."""

import pytest
import torch
from torchvision.transforms import v2

from distill.data._flow import Flow
from distill.data._samples import Sample, collated
from tests.data import moves


def moved(number: int) -> Sample:
    return Sample(moves.pictures(number), torch.from_numpy(moves.flow(number)).as_subclass(Flow))


def error(sample: Sample) -> float:
    """Mean difference between the first picture and the second one looked up where the flow says, away from edges."""
    first, second = (v2.functional.pil_to_tensor(picture).float() for picture in sample.pictures)
    height, width = first.shape[1:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    flow = sample.label.as_subclass(torch.Tensor)
    at = torch.stack([2 * (x + flow[0]) / (width - 1) - 1, 2 * (y + flow[1]) / (height - 1) - 1], -1)
    found = torch.nn.functional.grid_sample(second[None], at[None], align_corners=True)[0]
    inner = (slice(None), slice(8, -8), slice(8, -8))
    return (found - first)[inner].abs().mean().item()


TRANSFORMS = {
    "mirror": v2.RandomHorizontalFlip(1.0),
    "upside down": v2.RandomVerticalFlip(1.0),
    "smaller": v2.Resize([36, 40]),
    "larger": v2.Resize(96),
    "crop": v2.RandomCrop([32, 40]),
    "centre": v2.CenterCrop([32, 40]),
    "resized crop": v2.RandomResizedCrop([40, 40], scale=(0.5, 0.9)),
    "all": v2.Compose([v2.RandomResizedCrop([40, 56], scale=(0.5, 0.9)), v2.RandomHorizontalFlip(1.0)]),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("number", range(2))
def test_the_second_picture_looks_as_the_flow_says(name, number):
    torch.manual_seed(0)
    sample = TRANSFORMS[name](moved(number))
    assert isinstance(sample.label, Flow)
    assert sample.label.shape[1:] == sample.pictures[0].size[::-1]
    assert error(sample) < 1.0  # grey levels; without turning or scaling vectors: 3 to 30
    wrong = Sample(sample.pictures, (-sample.label).as_subclass(Flow))
    assert error(wrong) > 5


def test_what_moves_in_is_unknown():
    sample = v2.CenterCrop([64, 64])(moved(0))
    assert sample.label.isnan().all(0).sum() == 16 * 64
    assert v2.Pad([2, 0, 0, 0])(moved(0)).label.isnan().all(0).sum() == 2 * 48
    labels = collated([sample.label, sample.label])
    assert labels["flow"].shape == (2, 2, 64, 64)
    assert labels["flow"].isfinite().all()
    assert labels["valid"].sum() == 2 * 48 * 64
    assert type(labels["flow"]) is torch.Tensor
