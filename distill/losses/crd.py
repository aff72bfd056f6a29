"""Tian, Krishnan & Isola: Contrastive Representation Distillation. arXiv:1910.10699, equation 18.

As in the authors' code: each network's embedding is contrasted with a memory of the other's, and the
normalisation is fixed by the first training batch. Departs from it: log space, where the size of the training set
cancels out; scores against the whole memory by one matrix product, from which those of the negatives are picked; and a
``queue``, which needs no row per training sample.

Batches of one are fine, since negatives come from memory. Under DDP each process contrasts its local batch with what
all processes remember.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from distill.losses import loss
from distill.models.feature_maps import embedding, embedding_size
from distill.processes import gathered
from distill.registry.ranges import Count, Probability, Temperature

Both = Float[Tensor, "2 batch dimension"]
"""What belongs to the student, and what belongs to the teacher."""


@loss("crd")
class Contrast(nn.Module):
    """An image's two embeddings should agree more than either does with remembered images of other classes.

    Both embeddings are learned; maps are averaged over their pixels first. Memory, in floats: a bank takes
    2 * samples * dimension (61 MB for 60,000 images), a queue 2 * negatives * dimension (17 MB); scores take
    2 * batch * rows of the memory. Both are in the state dict, so a resumed run remembers.

    Args:
        student_shape: of the student's last map, or of its average.
        teacher_shape: likewise.
        train_labels: the class of every training sample.
        dimension: of the embeddings.
        negatives: remembered images for each one of the batch. A bank draws them with replacement, so there may be
            more than samples; a queue keeps that many of the latest, those of the same class unused.
        temperature: divides the scores.
        momentum: how much of a bank's old row stays when its image comes again, from 0 to 1; a queue has none.
        memory: ``bank``, a row for every training sample, or ``queue``.

    Raises:
        ValueError: all training samples are of one class, or they have no class.
    """

    log_z: Tensor

    def __init__(
        self,
        student_shape: tuple[int, ...],
        teacher_shape: tuple[int, ...],
        train_labels: Tensor,
        *,
        dimension: Count = 128,
        negatives: Count = 16384,
        temperature: Temperature = 0.07,
        momentum: Probability = 0.5,
        memory: Literal["bank", "queue"] = "bank",
    ) -> None:
        super().__init__()
        if train_labels.dim() != 1 or train_labels.is_floating_point() or len(train_labels.unique()) < 2:
            raise ValueError("crd takes negatives from other classes: train_labels must name two classes or more")
        self.temperature = temperature
        self.embed_student = nn.Linear(embedding_size(student_shape), dimension)
        self.embed_teacher = nn.Linear(embedding_size(teacher_shape), dimension)
        self.memory = (
            Bank(train_labels, dimension, negatives, momentum)
            if memory == "bank"
            else Queue(train_labels, dimension, negatives)
        )
        self.register_buffer("log_z", torch.full((2, 1, 1), torch.nan))

    def forward(
        self, student: Float[Tensor, " batch *_s"], teacher: Float[Tensor, " batch *_t"], sample: Int[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        with torch.autocast(student.device.type, enabled=False):
            pair = self.embed_student(embedding(student)), self.embed_teacher(embedding(teacher))
            embedded = F.normalize(torch.stack(pair), dim=2)
            scores = self.memory(embedded, sample) / self.temperature  # (2, batch, 1 + negatives)
        negatives = scores[:, :, 1:].isfinite().sum(dim=2, keepdim=True)
        log_z = torch.where(self.log_z.isnan(), log_mean_exp(scores.detach()), self.log_z)
        if torch.is_grad_enabled():  # a probe leaves no trace
            self.log_z.copy_(log_z)
            new, sample = gathered(embedded.detach().transpose(0, 1), sample)
            self.memory.remember(new.transpose(0, 1), sample)
        # Log odds that a pair is the true one, not one of that many drawn from the noise.
        odds = scores - log_z - negatives.clamp(min=1).log()
        likelihood = F.logsigmoid(odds[:, :, 0]) + F.logsigmoid(-odds[:, :, 1:]).sum(dim=2)
        return -likelihood.sum(dim=0).mean()


class Bank(nn.Module):
    """A row for every training sample, updated whenever the sample comes."""

    same_everywhere = True
    rows: Tensor
    classes: Tensor
    by_class: Tensor
    sizes: Tensor

    def __init__(self, labels: Int[Tensor, " samples"], dimension: int, negatives: int, momentum: float) -> None:
        super().__init__()
        self.negatives, self.momentum = negatives, momentum
        self.register_buffer("rows", random_rows(len(labels), dimension))
        _, classes, sizes = labels.unique(return_inverse=True, return_counts=True)
        self.register_buffer("classes", classes, persistent=False)
        self.register_buffer("by_class", classes.argsort(stable=True), persistent=False)
        self.register_buffer("sizes", sizes, persistent=False)

    def forward(self, embedded: Both, sample: Int[Tensor, " batch"]) -> Float[Tensor, " 2 batch candidates"]:
        """Scores against the other network's rows: the sample's own, then its negatives."""
        chosen = torch.cat([sample[:, None], self.draw(sample)], dim=1)
        return (embedded @ self.rows.flip(0).mT).gather(2, chosen.expand(2, -1, -1))

    def draw(self, sample: Int[Tensor, " batch"]) -> Int[Tensor, " batch negatives"]:
        """Rows drawn evenly, with replacement, from all samples of other classes than each one's own."""
        own = self.classes[sample][:, None]
        size, end = self.sizes[own], self.sizes.cumsum(0)[own]
        shape = len(sample), self.negatives
        # Rows lie class by class; the remainder of a number this large is as good as even.
        place = torch.randint(2**62, shape, device=sample.device) % (len(self.rows[0]) - size)
        return self.by_class[torch.where(place < end - size, place, place + size)]

    def remember(self, embedded: Both, sample: Int[Tensor, " batch"]) -> None:
        mixed = self.momentum * self.rows[:, sample] + (1 - self.momentum) * embedded
        self.rows[:, sample] = F.normalize(mixed, dim=2)


class Queue(nn.Module):
    """The latest embeddings and their classes; random ones of no class until there have been enough."""

    same_everywhere = True
    rows: Tensor
    row_labels: Tensor
    labels: Tensor
    oldest: Tensor

    def __init__(self, labels: Int[Tensor, " samples"], dimension: int, negatives: int) -> None:
        super().__init__()
        self.register_buffer("rows", random_rows(negatives, dimension))
        self.register_buffer("row_labels", torch.full((negatives,), -1))
        self.register_buffer("oldest", torch.tensor(0))
        self.register_buffer("labels", labels.unique(return_inverse=True)[1], persistent=False)

    def forward(self, embedded: Both, sample: Int[Tensor, " batch"]) -> Float[Tensor, " 2 batch candidates"]:
        """Scores against the other network: the same image's embedding, then all rows; -inf where the class is."""
        positive = (embedded * embedded.flip(0).detach()).sum(dim=2, keepdim=True)
        same = self.row_labels == self.labels[sample][:, None]
        return torch.cat([positive, (embedded @ self.rows.flip(0).mT).masked_fill(same, -torch.inf)], dim=2)

    def remember(self, embedded: Both, sample: Int[Tensor, " batch"]) -> None:
        length = len(self.row_labels)
        embedded, sample = embedded[:, -length:], sample[-length:]
        place = (self.oldest + torch.arange(len(sample), device=sample.device)) % length
        self.rows[:, place] = embedded
        self.row_labels[place] = self.labels[sample]
        self.oldest.copy_((self.oldest + len(sample)) % length)


def random_rows(rows: int, dimension: int) -> Float[Tensor, "2 rows dimension"]:
    """Even in a cube around the origin, about one long."""
    return torch.empty(2, rows, dimension).uniform_(-1, 1) * (3 / dimension) ** 0.5


def log_mean_exp(scores: Float[Tensor, "2 batch candidates"]) -> Float[Tensor, "2 1 1"]:
    """The logarithm of the mean of exp(scores), of each network; -inf does not count."""
    count = scores.isfinite().sum(dim=(1, 2), keepdim=True)
    return scores.logsumexp(dim=(1, 2), keepdim=True) - count.log()
