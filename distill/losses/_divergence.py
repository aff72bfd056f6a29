"""How far the class probabilities behind one set of logits are from those behind another."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def kl(student: Float[Tensor, "batch classes"], teacher: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
    """KL(softmax(teacher) || softmax(student)), mean over the batch; both are logits."""
    return F.kl_div(F.log_softmax(student, 1), F.log_softmax(teacher, 1), reduction="batchmean", log_target=True)
