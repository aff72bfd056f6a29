"""What a loss that compares the images of a batch with each other asks of the batch."""

from torch import Tensor


def refuse_a_batch_of_one(name: str, features: Tensor) -> None:
    """Check that there is something to compare with.

    Args:
        name: the loss, as recipes call it.
        features: anything whose first dimension is the batch.

    Raises:
        ValueError: the batch has one image.
    """
    if len(features) < 2:
        raise ValueError(
            f"{name} compares the images of a batch with each other, but this batch has one; enlarge batch_size"
        )
