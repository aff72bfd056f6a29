"""Park et al.: Faster CNNs with Direct Sparse Convolutions and Guided Pruning. arXiv:1608.01409, section 2.3: pruning
that looks at speed: only layers that become faster are pruned, only as far as that helps, and all or nothing.

Departs from the paper: the network is pruned between trainings, in ``rounds``, to a sparsity that is asked for. Which
weights go follows the authors' code: those below 1 / (|g| / t + 1 / (k t)), with gradient g. The t is what gives that
sparsity. The L1 penalty of its training is the loss ``l1`` under ``finetune``.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import torch
from torch import Tensor

from distill.artifact import Artifact, store
from distill.artifact.sparse import Pruned, Sparse, Spliced, largest
from distill.artifact.storage import Stored, need
from distill.batch import Batch
from distill.compress import hook
from distill.compress._layers import refuse_broken
from distill.compress._weights import weights_of
from distill.compress.pruning._saliency import TaskLoss, saliencies
from distill.errors import RecipeError
from distill.kernels.performance import Machine, works
from distill.registry import form
from distill.registry.ranges import Positive, Share

log = logging.getLogger(__name__)

Ranges = Mapping[str, tuple[float, float]]
"""Parameter name -> densities, least and most, between which its layer gets faster."""


@form("restorable")
@dataclass(frozen=True, eq=False, kw_only=True)
class Restorable(Pruned):
    """A pruned weight that may become dense again, between the rounds of pruning."""

    before: Tensor
    """The dense weight that pruning began with."""

    def validate(self, shape: tuple[int, ...]) -> None:
        super().validate(shape)
        need(self.before.is_floating_point() and self.before.shape == shape, "a dense weight of another shape")

    def nbytes(self) -> int:
        return self.inner.nbytes() + self.before.nbytes

    def requantize(self, tensor: Tensor) -> "Restorable":
        return replace(self, inner=self.inner.requantize(tensor))


@hook("guided_sparsity")
def guided_sparsity(
    artifact: Artifact,
    calibration: Sequence[Batch],
    task_loss: TaskLoss,
    progress: float = 1.0,
    *,
    sparsity: Share = 0.8,
    k: Positive = 10.0,
    splice: bool = False,
    alpha: Positive = 2.0,
    beta: Positive = 2.0,
    flops: Positive = 100e9,
    bandwidth: Positive = 20e9,
    layers: list[str] | None = None,
) -> Artifact:
    """Zeros in convolutions that ``distill.kernels.sparse`` then runs faster; all others stay dense.

    A layer keeps what its least useful density asks for. One that the last round leaves too dense to be faster gets
    back what it had where its weights were pruned.

    Args:
        artifact: what to compress.
        calibration: batches with labels, for gradients; the first tells the size of images.
        task_loss: of an output and its batch.
        progress: the part of all rounds that is done with this one: the sparsity is ``1 - (1 - progress)**3`` of what
            is asked.
        sparsity: the part of the weights of all layers worth pruning that become zeros, above 0 and below 1; less
            where layers keep more.
        k: how little weights with large gradients may be to stay: the threshold of one without is ``k`` times t.
        splice: fine-tuning chooses the mask anew in every step; what is masked goes on learning meanwhile.
        alpha: how much longer an operation takes in the sparse kernel; this and the next three: see ``Machine`` in
            ``distill.kernels.performance``, which also measures them.
        beta: bytes of a non-zero over those of a dense weight.
        flops: operations per second of a dense convolution.
        bandwidth: bytes per second from memory.
        layers: globs of module paths: prune these, whether the model calls them worth it or not; without any, those
            that it does.

    Raises:
        RecipeError: a setting is out of range, a glob matches no convolution, the artifact is encoded, or a weight is
            stored in another form.
        TrainingError: a weight or its gradient is not finite.
    """
    if not 0 < sparsity < 1 or min(k, alpha, beta, flops, bandwidth) <= 0:
        raise RecipeError(
            f"guided_sparsity needs 0 < sparsity < 1, and k, alpha, beta, flops, bandwidth above 0; not {sparsity}, "
            f"{k}, {alpha}, {beta}, {flops}, {bandwidth}"
        )
    weights = weights_of(artifact, "guided_sparsity", layers)
    machine = Machine(flops, bandwidth, alpha, beta)
    ranges = _ranges(artifact, weights, calibration[0].inputs, machine, named=layers is not None)
    scores = _scores(artifact, list(ranges), calibration, task_loss, k)
    masks = _masks(scores, ranges, sparsity * (1 - (1 - progress) ** 3))
    done = [name for name in ranges if progress >= 1]
    dense = [name for name in done if float(masks[name].float().mean()) > ranges[name][1]]
    _explain(masks, ranges, dense)
    forms = {
        name: _form(artifact, name, mask, splice, last=name in done)
        for name, mask in masks.items()
        if name not in dense
    }
    return store(_restored(artifact, dense), forms)


def _ranges(artifact: Artifact, weights: Mapping[str, Tensor], images: Tensor, machine: Machine, named: bool) -> Ranges:
    """The useful densities of every layer to prune."""
    device = next(artifact.model.parameters()).device
    found = {f"{path}.weight": machine.useful(w) for path, w in works(artifact.model, images.to(device)).items()}
    ranges = {name: found[name] for name in weights if name in found}
    if named and not ranges:
        raise RecipeError("guided_sparsity prunes convolutions with zeros around their input: name some in 'layers'")
    if named:
        ranges = {name: (least, most or 1 / machine.alpha) for name, (least, most) in ranges.items()}
    ranges = {name: (least, most) for name, (least, most) in ranges.items() if most > 0}
    for name in ranges:
        if not isinstance(artifact.stored.get(name), Restorable | None):
            raise RecipeError(f"'{name}' is already stored in another form: put 'guided_sparsity' before its hook")
    return ranges


def _scores(
    artifact: Artifact, names: Sequence[str], calibration: Sequence[Batch], task_loss: TaskLoss, k: float
) -> dict[str, Tensor]:
    """What the threshold t is compared with: |w| |g| + |w| / k."""
    if not names:
        return {}
    slopes, sizes = (
        saliencies(kind, artifact.copy_model(), names, calibration, task_loss) for kind in ("taylor", "magnitude")
    )
    scores = {name: slopes[name] + sizes[name] / k for name in names}
    for name, score in scores.items():
        refuse_broken("guided_sparsity", f"saliency of {name}", score)
    return scores


def _masks(scores: Mapping[str, Tensor], ranges: Ranges, sparsity: float) -> dict[str, Tensor]:
    """The weights above one threshold for all layers, and what each keeps in any case."""
    if not scores:
        return {}
    kept = {name: largest(score, max(1, ceil(ranges[name][0] * score.numel()))) for name, score in scores.items()}
    flat = torch.cat([score.masked_fill(kept[name], torch.inf).flatten() for name, score in scores.items()])
    count = max(len(flat) - round(sparsity * len(flat)), int(flat.isinf().sum()))
    parts = largest(flat, count).split([score.numel() for score in scores.values()])
    return {name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)}


def _form(artifact: Artifact, name: str, mask: Tensor, splice: bool, last: bool) -> Stored:
    weight, old = artifact.model.get_parameter(name).detach().cpu(), artifact.stored.get(name)
    kept = Sparse.of(weight, mask.cpu())
    sparse = Spliced(inner=kept, pattern=[]) if splice else kept
    if last:
        return sparse
    return Restorable(inner=sparse, before=old.before if isinstance(old, Restorable) else weight)


@torch.no_grad()
def _restored(artifact: Artifact, names: Sequence[str]) -> Artifact:
    """The artifact with these weights dense: pruned ones have the values that they had before."""
    model = artifact.copy_model()
    for name in names:
        if isinstance(old := artifact.stored.get(name), Restorable):
            weight = model.get_parameter(name)
            weight.copy_(torch.where(weight == 0, old.before.to(weight.device), weight))
    stored = {name: kept for name, kept in artifact.stored.items() if name not in names}
    return replace(artifact, model=model, stored=stored)


def _explain(masks: Mapping[str, Tensor], ranges: Ranges, dense: Sequence[str]) -> None:
    """Log one line for the result; each layer by name with ``--debug``."""
    for name, mask in masks.items():
        density = float(mask.float().mean())
        log.debug("guided_sparsity: %s: density %.3f, useful from %.3f to %.3f", name, density, *ranges[name])
    sparse = [mask for name, mask in masks.items() if name not in dense]
    kept, of = sum(int(mask.sum()) for mask in sparse), sum(mask.numel() for mask in sparse)
    again = f"; dense again, for they would not be faster: {', '.join(dense)}" if dense else ""
    log.info("guided_sparsity: %d layers, kept %d of %d weights%s", len(sparse), kept, of, again)
