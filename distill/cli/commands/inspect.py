"""Show what an artifact holds: network, hooks, and how each tensor is stored."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

BAR = 20
"""Columns of the largest tensor's bar."""
LONG = 200
"""Characters; longer settings, such as the layers of a network from Caffe, are not shown."""


def add_arguments(parser: ArgumentParser) -> None:
    """The artifact."""
    parser.add_argument("artifact", help="a .safetensors file of a run")
    parser.add_argument("--allow", action="append", default=[], metavar="MODULE", help="module of a network of yours")


def run(options: Namespace) -> None:
    """Print it, one line per tensor, with a bar as long as the tensor's part of the bytes."""
    from rich.table import Table
    from rich.text import Text

    from distill.artifact import open_artifact
    from distill.console import console
    from distill.models import cost

    artifact = open_artifact(Path(options.artifact), allow=options.allow)
    size = Path(options.artifact).stat().st_size
    for name, value in (
        ("network", {key: value if len(str(value)) <= LONG else "..." for key, value in artifact.network.items()}),
        ("task", artifact.about.get("task")),
        ("data", artifact.about.get("info")),
        ("total", f"{cost.params(artifact.model):,} parameters, {size:,} bytes"),
    ):
        console.print(Text(f"{name:<8} {value}"), soft_wrap=False)
    for step in artifact.history:
        scores = "  ".join(f"{key} {value:.4f}" for key, value in step.metrics.items())
        console.print(Text(f"history  {step.step}: {step.parameters}, {step.bytes:,} bytes  {scores}"))
    for plan in artifact.plans:
        console.print(Text(f"changed  {plan.hook}: {len(plan.layers)} layers"))
    table = Table("parameter", "shape", "stored as", "bytes", "bits per value", box=None, pad_edge=False)
    table.add_column("", min_width=BAR, no_wrap=True)  # where there is no room, names are folded instead
    parameters = dict(artifact.model.named_parameters())
    forms = {name: artifact.stored.get(name) for name in parameters}
    sizes = {
        name: form.nbytes() if form else parameters[name].numel() * parameters[name].element_size()
        for name, form in forms.items()
    }
    for name, parameter in parameters.items():
        kind = _stored_as(forms[name]) if forms[name] else str(parameter.dtype).removeprefix("torch.")
        bits = f"{8 * sizes[name] / parameter.numel():.2f}" if parameter.numel() else ""
        bar = "#" * round(BAR * sizes[name] / (max(sizes.values()) or 1))
        table.add_row(Text(name), "x".join(map(str, parameter.shape)), kind, f"{sizes[name]:,}", bits, bar)
    console.print(table)


def _stored_as(form: Any) -> str:
    """The form, and by which stages its codes are coded."""
    from distill.artifact.storage import Encoded

    if isinstance(form, Encoded):
        return f"{type(form.inner).__name__}, {' + '.join(form.stages)}"
    return type(form).__name__
