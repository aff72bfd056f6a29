"""Show what an artifact holds: network, hooks, and how each tensor is stored."""

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """The artifact."""
    parser.add_argument("artifact", help="a .safetensors file of a run")
    parser.add_argument("--allow", action="append", default=[], metavar="MODULE", help="module of a network of yours")


def run(options: Namespace) -> None:
    """Print it, one line per tensor."""
    from rich.table import Table
    from rich.text import Text

    from distill.artifact import open_artifact
    from distill.console import console
    from distill.models import cost

    artifact = open_artifact(Path(options.artifact), allow=options.allow)
    size = Path(options.artifact).stat().st_size
    for name, value in (
        ("network", artifact.network),
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
    for name, parameter in artifact.model.named_parameters():
        form = artifact.stored.get(name)
        size = form.nbytes() if form else parameter.numel() * parameter.element_size()
        kind = type(form).__name__ if form else str(parameter.dtype).removeprefix("torch.")
        bits = f"{8 * size / parameter.numel():.2f}" if parameter.numel() else ""
        table.add_row(Text(name), "x".join(map(str, parameter.shape)), kind, f"{size:,}", bits)
    console.print(table)
