"""The teacher's map under a normal distribution with a learned mean."""

import pytest
import torch
import torch.nn.functional as F
from torchdistill.losses.mid_level import VIDLoss

from distill.losses.vid import VariationalInformation


def test_vid_is_the_negative_log_likelihood() -> None:
    vid = VariationalInformation((4, 3, 5, 5), (4, 2, 5, 5))
    vid.raw_variance.data = torch.tensor([0.3, -2.0])
    student, teacher = torch.randn(4, 3, 5, 5), torch.randn(4, 2, 5, 5)
    mean, variance = vid.mean(student), (1 + vid.raw_variance.exp()).log() + 1e-5
    per_channel = [F.gaussian_nll_loss(mean[:, c], teacher[:, c], variance[c].expand(4, 5, 5)) for c in range(2)]
    torch.testing.assert_close(vid(student, teacher), sum(per_channel) / 2)


@pytest.mark.parametrize("variance", [5.0, 0.5])
def test_vid_starts_from_the_variance_asked_for(variance: float) -> None:
    vid = VariationalInformation((4, 3, 5, 5), (4, 2, 5, 5), initial_variance=variance)
    mean = torch.zeros(1, 2, 5, 5)
    vid.mean = torch.nn.Identity()
    at_mean, one_off = vid(mean, mean), vid(mean, mean + 1)
    torch.testing.assert_close(at_mean, torch.tensor(variance).log() / 2)
    torch.testing.assert_close(one_off - at_mean, torch.tensor(0.5 / variance), rtol=1e-4, atol=0)


def test_vid_settles_at_the_variance_of_what_the_student_cannot_tell() -> None:
    vid = VariationalInformation((64, 2, 2, 2), (64, 2, 2, 2))
    vid.mean = torch.nn.Identity()
    student = torch.randn(64, 2, 2, 2)
    teacher = student + torch.randn_like(student) * torch.tensor([0.2, 2.0])[:, None, None]
    left = (student - teacher).square().mean(dim=(0, 2, 3))
    for factor, sign in ((0.5, -1), (1, 0), (2, 1)):
        vid.raw_variance.data, vid.raw_variance.grad = (factor * left - 1e-5).expm1().log(), None
        vid(student, teacher).backward()
        assert vid.raw_variance.grad.sign().where(vid.raw_variance.grad.abs() > 1e-4, 0).tolist() == [sign, sign]


def test_vid_equals_torchdistills() -> None:
    vid = VariationalInformation((4, 3, 5, 5), (4, 2, 5, 5))
    student, teacher = torch.randn(4, 3, 5, 5), torch.randn(4, 2, 5, 5)
    prediction = vid.mean(student), torch.full((1, 2, 1, 1), 5.0)
    pair = {"student": {"io": "output", "path": "s"}, "teacher": {"io": "output", "path": "t"}}
    theirs = VIDLoss({"pair": pair})({"s": {"output": prediction}}, {"t": {"output": teacher}})
    torch.testing.assert_close(vid(student, teacher), theirs)


def test_vid_compares_at_the_smaller_size() -> None:
    vid = VariationalInformation((2, 3, 4, 4), (2, 2, 8, 8))
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 2, 8, 8)
    torch.testing.assert_close(vid(student, teacher), vid(student, F.avg_pool2d(teacher, 2)))


def test_vid_takes_vectors_as_maps_of_one_pixel() -> None:
    vid = VariationalInformation((4, 3), (4, 2))
    student, teacher = torch.randn(4, 3), torch.randn(4, 2)
    torch.testing.assert_close(vid(student, teacher), vid(student[..., None, None], teacher[..., None, None]))


def test_vid_refuses_a_variance_that_it_cannot_reach() -> None:
    with pytest.raises(ValueError, match="initial_variance is 0.0; it must be above 1e-05"):
        VariationalInformation((4, 3), (4, 2), initial_variance=0.0)
