"""Kim, Park & Kwak: Paraphrasing Complex Network: Network Compression via Factor Transfer. arXiv:1802.04977,
equations 1 to 3.

Factors are compared as in RepDistiller's FT.py, to which the published weights belong: by the mean of their squares
over channels. ``pooled: false`` compares whole factors, as the paper and its authors' code do. Departs from all of
them: Adam teaches the paraphraser, for it has no batch norm and SGD diverges on features much larger than 1.
"""

from collections.abc import Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.models.feature_maps import pool_to_smaller, widened
from distill.registry.ranges import Count, Positive


@loss("ft")
class FactorTransfer(nn.Module):
    """A translation of the student's map should equal a paraphrase of the teacher's, each scaled to a unit vector.

    The paraphraser learns in `prepare`, as the first half of an autoencoder, and is frozen from then on; the
    translator trains with the student. Factors of different sizes are compared at the smaller one's.

    Args:
        student_shape: (batch, channels, height, width).
        teacher_shape: (batch, channels, height, width).
        rate: channels of a factor for each of the teacher's, above 0.
        pooled: compare means over channels instead of all values.
        paraphraser_epochs: passes over the teacher's features.
        paraphraser_lr: the learning rate in these.

    Raises:
        ValueError: a factor would have no channel.
    """

    def __init__(
        self,
        student_shape: tuple[int, ...],
        teacher_shape: tuple[int, ...],
        *,
        rate: Positive = 0.5,
        pooled: bool = True,
        paraphraser_epochs: Count = 30,
        paraphraser_lr: Positive = 0.001,
    ) -> None:
        super().__init__()
        channels, factors = teacher_shape[1], int(rate * teacher_shape[1])
        if factors < 1:
            raise ValueError(f"ft: rate {rate} leaves none of the teacher's {channels} channels; raise it")
        self.widths, self.pooled = [channels, channels, factors, factors], pooled
        self.epochs, self.lr = paraphraser_epochs, paraphraser_lr
        self.paraphraser = convolutions(self.widths).requires_grad_(False)
        self.translator = convolutions([student_shape[1], student_shape[1], factors, factors], norm=nn.BatchNorm2d)

    def forward(
        self,
        student: Float[Tensor, "batch channels_s height_s width_s"],
        teacher: Float[Tensor, "batch channels_t height_t width_t"],
    ) -> Float[Tensor, ""]:
        student, teacher = pool_to_smaller(self.translator(student), self.paraphraser(teacher))
        return F.l1_loss(self._direction(student), self._direction(teacher))

    @torch.enable_grad()
    def prepare(self, teacher_features: Iterable[Float[Tensor, "_ channels_t height_t width_t"]]) -> None:
        """Teach the paraphraser: from its factors, a decoder that is forgotten afterwards rebuilds the features."""
        decoder = convolutions(self.widths[::-1], convolution=nn.ConvTranspose2d)
        autoencoder = nn.Sequential(self.paraphraser.requires_grad_(True), decoder)
        autoencoder.to(next(self.paraphraser.parameters()))
        optimizer = torch.optim.Adam(autoencoder.parameters(), lr=self.lr)
        for _ in range(self.epochs):
            for features in teacher_features:
                optimizer.zero_grad()
                F.mse_loss(autoencoder(features), features).backward()
                optimizer.step()
        optimizer.zero_grad()
        self.paraphraser.requires_grad_(False)

    def _direction(self, factor: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch values"]:
        factor = widened(factor)
        return F.normalize((factor.square().mean(dim=1) if self.pooled else factor).flatten(1), dim=1)


def convolutions(
    widths: list[int], *, convolution: type[nn.Module] = nn.Conv2d, norm: type[nn.Module] = nn.Identity
) -> nn.Sequential:
    """A 3x3 layer from each of the widths to the next, all with leaky ReLUs."""
    return nn.Sequential(
        *(
            nn.Sequential(convolution(before, after, 3, padding=1), norm(after), nn.LeakyReLU(0.1))
            for before, after in pairwise(widths)
        )
    )
