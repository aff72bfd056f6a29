"""LeCun et al.: Gradient-Based Learning Applied to Document Recognition (1998), for 28x28 images.

LeNet-300-100 and LeNet-5 in the forms that compression papers count: Han et al.: Deep Compression. arXiv:1510.00149,
tables 2 and 3. This LeNet-5 is Caffe's: wider than the original, and without a ReLU after its convolutions.
"""

from torch import nn

from distill.ranges import Count
from students import student
from students._blocks import Network


@student("lenet_300_100")
def lenet_300_100(*, num_classes: Count = 10, channels: Count = 1) -> nn.Module:
    """Two hidden layers, of 300 and 100 units, on 28x28 images."""
    layers = {
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(channels * 28 * 28, 300),
        "relu1": nn.ReLU(),
        "fc2": nn.Linear(300, 100),
        "relu2": nn.ReLU(),
        "fc3": nn.Linear(100, num_classes),
    }
    return Network(layers, stages=("relu1", "relu2"))


@student("lenet5")
def lenet5(*, num_classes: Count = 10, channels: Count = 1) -> nn.Module:
    """Two convolutions and two linear layers, on 28x28 images."""
    layers = {
        "conv1": nn.Conv2d(channels, 20, 5),
        "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(20, 50, 5),
        "pool2": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(50 * 4 * 4, 500),
        "relu1": nn.ReLU(),
        "fc2": nn.Linear(500, num_classes),
    }
    return Network(layers, stages=("pool1", "pool2"))
