"""Optical flow as a task: errors by hand, unknown pixels, colours, predictions, what is refused."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from distill.batch import Batch
from distill.data._flow_files import read_flo
from distill.data.info import DataInfo
from distill.errors import RecipeError
from distill.losses.epe import end_point_error
from distill.tasks._flow_colours import flow_colours, wheel
from distill.tasks.optical_flow import OpticalFlow, reduced

PAIRS = DataInfo(3, (8, 12), (0.5,) * 3, (0.5,) * 3, images=2)
TASK = OpticalFlow(PAIRS)


def labels(flow, valid=None):
    return {"flow": flow, "valid": torch.ones(len(flow), *flow.shape[2:], dtype=torch.bool) if valid is None else valid}


def batch(flow, valid=None):
    height, width = flow.shape[2:]
    return Batch(torch.zeros(len(flow), 6, height, width), labels(flow, valid), torch.arange(len(flow)))


def noise(*shape, seed=0):
    return 5 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def measured(output, truth):
    metrics = TASK.metrics()
    for one in range(len(output)):
        TASK.update(metrics, output[one : one + 1], truth.take(one))
    return {name: float(value) for name, value in metrics.compute().items()}


def test_metrics_against_loops_over_known_pixels():
    output, flow = noise(3, 2, 8, 12), noise(3, 2, 8, 12, seed=1)
    valid = noise(3, 8, 12, seed=2) > 0
    errors, outliers = [], []
    for n, y, x in valid.nonzero().tolist():
        (u, v), (a, b) = output[n, :, y, x].tolist(), flow[n, :, y, x].tolist()
        errors.append(math.hypot(u - a, v - b))
        outliers.append(errors[-1] > 3 and errors[-1] > 0.05 * math.hypot(a, b))
    found = measured(output, batch(flow, valid))
    assert found["epe"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert found["fl_all"] == pytest.approx(np.mean(outliers))
    assert float(TASK.loss(output, batch(flow, valid))) == pytest.approx(np.mean(errors), rel=1e-5)


def test_five_percent_of_a_long_vector_are_no_outlier():
    flow = torch.tensor([100.0, 0]).view(1, 2, 1, 1).expand(1, 2, 8, 12)
    assert measured(flow + torch.tensor([4.9, 0]).view(2, 1, 1), batch(flow)) == pytest.approx(
        {"epe": 4.9, "fl_all": 0}
    )
    assert measured(flow + torch.tensor([5.1, 0]).view(2, 1, 1), batch(flow)) == pytest.approx(
        {"epe": 5.1, "fl_all": 1}
    )


def test_a_coarse_output_is_compared_with_means_over_known_pixels():
    flow, valid = noise(1, 2, 8, 12), torch.ones(1, 8, 12, dtype=torch.bool)
    valid[0, :4, :4] = False  # nothing known of the first cell
    valid[0, 0, 4] = False  # one pixel of 16 missing in the second
    small, known = reduced(flow.where(valid[:, None], torch.tensor(0.0)), valid, (2, 3))
    assert known.tolist() == [[[False, True, True], [True, True, True]]]
    cell = flow[0, :, :4, 4:8][:, valid[0, :4, 4:8]]
    torch.testing.assert_close(small[0, :, 0, 1], cell.mean(1))
    assert float(TASK.loss(small, batch(flow, valid))) == pytest.approx(0, abs=1e-5)


def test_constant_flow_is_right_at_any_resolution():
    flow = torch.tensor([3.0, -4]).view(1, 2, 1, 1)
    truth = batch(flow.expand(1, 2, 8, 12))
    for size in ((8, 12), (4, 6), (2, 3)):
        assert measured(flow.expand(1, 2, *size), truth) == pytest.approx({"epe": 0, "fl_all": 0}, abs=1e-5)
    still = TASK.constant(None).expand(1, 2, 8, 12)
    assert measured(still, truth) == pytest.approx({"epe": 5, "fl_all": 1})


def test_a_batch_without_known_flow_gives_no_gradient_but_a_number():
    output = noise(1, 2, 2, 3).requires_grad_()
    loss = TASK.loss(output, batch(noise(1, 2, 8, 12), torch.zeros(1, 8, 12, dtype=torch.bool)))
    loss.backward()
    assert loss.item() == 0
    assert not output.grad.any()


@pytest.mark.parametrize(
    ("shape", "message"),
    [((3, 2, 3), r"outputs \(3, 2, 3\)"), ((2, 16, 24), "16x24 for images of 8x12"), ((2, 2, 12), "2x12")],
)
def test_outputs_that_are_no_flow_are_refused(shape, message):
    with pytest.raises(RecipeError, match=message):
        TASK.check(torch.zeros(1, *shape), batch(noise(1, 2, 8, 12)))
    TASK.check(torch.zeros(1, 2, 2, 3), batch(noise(1, 2, 8, 12)))


def test_data_without_pairs_is_refused():
    with pytest.raises(RecipeError, match="needs pairs of images, but the data has 1 to a sample: use flying_cutouts"):
        OpticalFlow(DataInfo(3, (8, 8), (0.5,), (0.5,)))


def test_a_teachers_flow_of_another_level():
    student, teacher = noise(2, 2, 4, 6), noise(2, 2, 8, 12, seed=1)
    means = teacher.unflatten(3, (6, 2)).unflatten(2, (4, 2)).mean((3, 5))
    expected = (student - means).square().sum(1).sqrt().mean()
    torch.testing.assert_close(end_point_error(student, teacher), expected)
    torch.testing.assert_close(end_point_error(teacher, student), expected)
    with pytest.raises(RecipeError, match=r"2 channels .*, but the teacher's tap \(2, 3, 4, 6\)"):
        end_point_error(student, noise(2, 3, 4, 6))


def test_predictions_and_truth_in_words_and_numbers():
    flow = torch.tensor([3.0, -4]).view(1, 2, 1, 1).expand(1, 2, 2, 3).clone()
    prediction = TASK.predict(flow)[0]
    assert prediction["flow"] == [[[3.0] * 3] * 2, [[-4.0] * 3] * 2]
    assert [prediction[key] for key in ("mean", "longest", "right", "down")] == [5, 5, 3, -4]
    valid = torch.tensor([[[True, True, True], [True, True, False]]])
    truth = TASK.truth(labels(flow, valid))[0]
    assert truth["flow"][0][1] == [3.0, 3.0, None]
    assert truth["mean"] == 5
    nothing = TASK.truth(labels(flow, torch.zeros(1, 2, 3, dtype=torch.bool)))[0]
    assert nothing["mean"] == 0
    images = Image.new("RGB", (24, 8), "teal")
    for known in (None, truth, nothing):
        drawn = TASK.draw(images, prediction, known)
        assert drawn.mode == "RGB"


def test_a_picture_shows_both_images_the_flow_and_the_true_flow_in_the_same_colours():
    image = Image.new("RGB", (400, 200), "black")  # two of 200 x 200
    right, left = (TASK.predict(torch.tensor([x, 0.0]).view(1, 2, 1, 1).expand(1, 2, 5, 5))[0] for x in (6.0, -3.0))
    drawn = TASK.draw(image, right, left)
    assert drawn.size[0] == 800
    colours = [drawn.getpixel((x, 100)) for x in (100, 300, 500, 700)]
    assert colours[:3] == [(0, 0, 0), (0, 0, 0), (255, 0, 0)]
    red, green, blue = colours[3]
    assert red < green <= blue  # pale: half as long


def test_the_colour_wheel():
    assert wheel().shape == (55, 3)
    assert len({tuple(colour) for colour in wheel().round(4).tolist()}) == 55
    angles = np.arange(8) * np.pi / 4
    flow = np.stack([np.cos(angles), np.sin(angles)])[:, None]
    colours = flow_colours(flow, 1.0)[0].astype(int)
    assert colours[0].tolist() == [255, 0, 0]
    assert (np.abs(np.diff(colours, axis=0)).sum(1) > 60).all()  # neighbours are told apart
    assert flow_colours(np.zeros((2, 1, 1)), 1.0).tolist() == [[[255] * 3]]
    assert flow_colours(np.full((2, 1, 1), np.nan), 1.0).tolist() == [[[128] * 3]]
    assert flow_colours(3 * flow, 1.0)[0, 0].tolist() == [191, 0, 0]


def test_files_of_flow_are_those_that_are_read(tmp_path):
    flow = noise(1, 2, 2, 3)
    TASK.write(Image.new("RGB", (24, 8)), TASK.predict(flow)[0], tmp_path / "0000-a")
    found = torch.from_numpy(read_flo(tmp_path / "0000-a.flo"))
    expected = torch.nn.functional.interpolate(flow, size=(8, 12), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)


def test_agreement_is_the_part_of_vectors_within_a_pixel():
    reference = noise(2, 2, 4, 6)
    off = reference.clone()
    off[:, 0, :2] += 1.5
    assert TASK.agreement(reference, reference) == 1
    assert TASK.agreement(off, reference) == pytest.approx(0.5)
