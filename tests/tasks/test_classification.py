import pytest
import torch
from PIL import Image

from distill.batch import Batch
from distill.data import DataInfo
from distill.errors import RecipeError
from distill.tasks.classification import Classification
from tests.nets import TEN_CLASSES

MANY = DataInfo(3, (8, 8), (0.5,) * 3, (0.5,) * 3, tuple(f"thing {number}" for number in range(30)))


def batch(labels: list[int]) -> Batch:
    return Batch(torch.zeros(len(labels), 1, 8, 8), torch.tensor(labels), torch.arange(len(labels)))


def test_top_5_counts_from_21_classes_on() -> None:
    assert list(Classification(TEN_CLASSES).metrics()) == ["accuracy"]
    assert list(Classification(DataInfo(1, (8, 8), (0,), (1,), tuple(map(str, range(20))))).metrics()) == ["accuracy"]
    assert list(Classification(MANY).metrics()) == ["accuracy", "top5_accuracy"]


def test_the_second_metric_counts_as_many_classes_as_asked_for() -> None:
    task = Classification(MANY, top_k=10)
    output = -torch.arange(30.0).repeat(4, 1)
    metrics = task.metrics()
    task.update(metrics, output, batch([0, 9, 10, 29]))
    assert {name: float(value) for name, value in metrics.compute().items()} == {
        "accuracy": 0.25,
        "top10_accuracy": 0.5,
    }
    assert task.units == {"accuracy": "%", "top10_accuracy": "%"}
    for top_k in (1, 30):
        with pytest.raises(RecipeError, match=f"task.top_k is {top_k}, but is above 1 and below the 30 classes"):
            Classification(MANY, top_k=top_k)


def test_of_thousands_of_classes_the_most_confused_pairs_are_a_figure() -> None:
    names = tuple(chr(0x4E00 + number) for number in range(3755))
    task = Classification(DataInfo(1, (8, 8), (0,), (1,), names))
    figure = task.figures()["most_confused"]
    predicted = torch.nn.functional.one_hot(torch.tensor([7, 7, 7, 3754, 2]), 3755).float()
    task.update(figure, predicted[:2], batch([7, 9]))
    task.update(figure, predicted[2:], batch([9, 0, 2]))
    assert list(figure.compute().items()) == [
        (f"{names[9]} taken for {names[7]}", 2),
        (f"{names[0]} taken for {names[3754]}", 1),
    ]
    for label in range(100, 140):
        task.update(figure, predicted[:1], batch([label]))
    assert len(figure.compute()) == 30


def test_accuracy_and_top_5_by_hand() -> None:
    task = Classification(MANY)
    output = -torch.arange(30.0).repeat(4, 1)  # class 0 is the most probable one, then 1, 2, ...
    metrics = task.metrics()
    task.update(metrics, output, batch([0, 4, 5, 29]))
    assert {name: float(value) for name, value in metrics.compute().items()} == {"accuracy": 0.25, "top5_accuracy": 0.5}


def test_the_confusion_matrix_is_a_figure() -> None:
    task = Classification(TEN_CLASSES)
    figure = task.figures()["confusion"]
    task.update(figure, torch.eye(10)[[3, 3, 5]], batch([3, 2, 5]))
    matrix = figure.compute()
    assert (matrix[3, 3], matrix[2, 3], matrix[5, 5], matrix.sum()) == (1, 1, 1, 3)


def test_a_prediction_names_classes_and_their_probabilities() -> None:
    task = Classification(MANY)
    logits = torch.zeros(2, 30)
    logits[0, 7], logits[1, 29] = 3.0, 5.0
    first, second = task.predict(logits)
    assert (first["class"], second["class"]) == ("thing 7", "thing 29")
    assert first["probability"] == pytest.approx(float(logits[0].softmax(0)[7]))
    assert len(first["top"]) == 5
    assert first["top"][0] == {"class": "thing 7", "probability": first["probability"]}
    assert len(Classification(DataInfo(1, (8, 8), (0,), (1,), ("a", "b"))).predict(torch.zeros(1, 2))[0]["top"]) == 2


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(8, 8), (300, 200), (20, 90)])
def test_a_drawn_image_keeps_its_shape_above_a_caption(mode: str, size: tuple[int, int]) -> None:
    task, image = Classification(TEN_CLASSES), Image.new(mode, size, "white")
    prediction = {"class": "3" * 200, "probability": 0.987}
    drawn = [task.draw(image, prediction, truth) for truth in (None, {"class": "3" * 200}, {"class": "4"})]
    heights = [picture.height for picture in drawn]
    assert heights[0] < heights[1] == heights[2]
    factor = drawn[0].width // size[0]
    for picture in drawn:
        assert picture.width == factor * size[0]
        above = picture.crop((0, 0, picture.width, factor * size[1]))
        assert above.convert("L").getextrema() == (255, 255)
    assert len({picture.tobytes() for picture in drawn}) == 3


def test_the_best_guess_is_the_most_frequent_class() -> None:
    constant = Classification(TEN_CLASSES).constant(torch.tensor([1, 7, 7, 2]))
    assert int(constant.argmax()) == 7


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2, 9), "outputs 9 classes, but the data has 10 classes"), ((2, 10, 4, 4), "outputs a map of 10x4x4")],
)
def test_an_output_of_other_classes_is_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Classification(TEN_CLASSES).check(torch.zeros(shape), batch([0, 1]))


def test_data_without_classes_is_refused() -> None:
    with pytest.raises(RecipeError, match="classification needs a data set with class_names"):
        Classification(DataInfo(1, (8, 8), (0.5,), (0.5,)))
