"""What a loss that is NaN or Inf says about its cause."""

from collections.abc import Mapping

from torch import Tensor


def explain(values: Mapping[str, Tensor], inputs: Tensor, *, epoch: int, step: int, lr: float, precision: str) -> str:
    """One line: which term is not finite first, and a remedy that fits.

    Args:
        values: the weighted terms of the loss, the task's first.
        inputs: of the batch.
        epoch: from 1.
        step: steps of the optimizer before this one.
        lr: its learning rate.
        precision: of Lightning's Trainer.
    """
    numbers = {key: value.item() for key, value in values.items()}
    broken = next((key for key, value in values.items() if not value.isfinite()), None)
    culprit = f"'{broken}' is {numbers[broken]}" if broken else "the sum of the loss's terms is Inf"
    shown = ", ".join(f"{key} {number:.3g}" for key, number in numbers.items())
    where = "in the first step" if step == 0 else f"in epoch {epoch}, step {step}"
    return f"the loss is NaN or Inf {where}: {culprit} ({shown}); {_remedy(broken, inputs, step, lr, precision)}"


def _remedy(broken: str | None, inputs: Tensor, step: int, lr: float, precision: str) -> str:
    if not inputs.isfinite().all():
        return "the inputs of this batch hold NaN or Inf: check the data set"
    setting = (
        f"losses.{broken.removeprefix('peer_')}" if broken and not broken.startswith(("task", "peer_task")) else ""
    )
    if precision.startswith("16"):
        return f"float16 ends at 65504: choose trainer.precision=bf16-mixed, or a smaller weight of {setting or 'it'}"
    if step:
        return f"lower optimizer.lr (now {lr}){f' or {setting}.weight' if setting else ''}"
    if setting:
        return f"nothing has been trained yet: check the settings of {setting} and what the networks output"
    return "nothing has been trained yet: check the weights that the network starts from, and the data set's labels"
