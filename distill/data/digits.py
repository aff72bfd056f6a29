"""Handwritten digits of 8x8 pixels that come with scikit-learn: real data without a download.

Alpaydin and Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998 (its test part).
"""

import torch
from sklearn.datasets import load_digits

from distill.data import data
from distill.data._in_memory import InMemory, Labelled
from distill.data._rand_augment import Magnitude
from distill.data._split import stratified
from distill.errors import RecipeError
from distill.registry.ranges import BelowOne, Count, Index


@data("digits")
class Digits(InMemory):
    """1,797 grey images of 10 digits.

    Args:
        test: the part of them that is the test set, stratified; a larger one holds all images of a smaller one.
    """

    mean = (0.3058,)
    std = (0.3762,)

    def __init__(
        self,
        seed: int,
        *,
        batch_size: Count = 64,
        val: BelowOne = 0.1,
        test: BelowOne = 0.2,
        limit: Count | None = None,
        crop: Index = 1,
        flip: bool = False,
        rand_augment: Magnitude | None = None,
    ) -> None:
        pixels, numbers = load_digits(return_X_y=True)
        images = torch.from_numpy((pixels * 255 / 16).round()).to(torch.uint8).view(-1, 1, 8, 8)  # from 0 to 16 there
        labels = torch.from_numpy(numbers).long()
        order = stratified(labels)
        tested = int(len(order) * test)
        if not tested:
            raise RecipeError(f"data.test={test} leaves none of {len(order)} images to test on")
        held_out, learned = (part.sort().values for part in order.split([tested, len(order) - tested]))
        super().__init__(
            seed,
            Labelled(images[learned], labels[learned]),
            Labelled(images[held_out], labels[held_out]),
            class_names=tuple("0123456789"),
            batch_size=batch_size,
            val=val,
            limit=limit,
            crop=crop,
            flip=flip,
            rand_augment=rand_augment,
        )
