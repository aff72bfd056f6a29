"""LeCun et al.: Gradient-Based Learning Applied to Document Recognition (1998), for square images, 28x28 in the paper.

LeNet-300-100 and LeNet-5 in the forms that compression papers count: Han et al.: Deep Compression. arXiv:1510.00149,
tables 2 and 3. This LeNet-5 is Caffe's: wider than the original, and without a ReLU after its convolutions.
"""

from torch import nn

from distill.registry.ranges import Count
from students import student
from students._blocks import Network


@student("lenet_300_100")
def lenet_300_100(*, num_classes: Count = 10, channels: Count = 1, input_size: Count = 28) -> nn.Module:
    """Two hidden layers, of 300 and 100 units.

    Args:
        num_classes: outputs.
        channels: of the images.
        input_size: height and width of the images.
    """
    layers = {
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(channels * input_size**2, 300),
        "relu1": nn.ReLU(),
        "fc2": nn.Linear(300, 100),
        "relu2": nn.ReLU(),
        "fc3": nn.Linear(100, num_classes),
    }
    return Network(layers, stages=("relu1", "relu2"))


@student("lenet5")
def lenet5(*, num_classes: Count = 10, channels: Count = 1, input_size: Count = 28) -> nn.Module:
    """Two convolutions and two linear layers.

    Args:
        num_classes: outputs.
        channels: of the images.
        input_size: height and width of the images. Below 16 pixels, of which nothing would be left, both convolutions
            pad by 2 pixels.

    Raises:
        ValueError: the images have fewer than 4 pixels a side.
    """
    if input_size < 4:
        raise ValueError(f"input_size={input_size}: two poolings leave nothing of fewer than 4 pixels")
    padding = 2 if input_size < 16 else 0
    side = ((input_size + 2 * padding - 4) // 2 + 2 * padding - 4) // 2
    layers = {
        "conv1": nn.Conv2d(channels, 20, 5, padding=padding),
        "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(20, 50, 5, padding=padding),
        "pool2": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(50 * side**2, 500),
        "relu1": nn.ReLU(),
        "fc2": nn.Linear(500, num_classes),
    }
    return Network(layers, stages=("pool1", "pool2"))
