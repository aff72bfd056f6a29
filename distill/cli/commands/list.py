"""List what a recipe may name."""

from argparse import ArgumentParser, Namespace
from textwrap import fill

from rich.table import Table
from rich.text import Text

from distill import registry
from distill.cli._network_costs import recorded
from distill.console import console
from distill.recipe import files
from distill.registry import Registry
from distill.registry.signatures import described
from students import student

INDENT = "    "
KINDS: dict[str, Registry | None] = {
    "recipes": None,
    "losses": registry.loss,
    "students": student,
    "hooks": registry.hook,
    "codecs": registry.codec,
    "tasks": registry.task,
    "data": registry.data,
    "exports": registry.exporter,
}


def add_arguments(parser: ArgumentParser) -> None:
    """What to list."""
    parser.add_argument("kind", choices=sorted(KINDS), help="one of: " + ", ".join(KINDS), metavar="KIND")


def run(options: Namespace) -> None:
    """Names with their settings and sources, read from files: nothing is imported."""
    kind = KINDS[options.kind]
    if kind is None:
        table = Table(box=None, pad_edge=False, show_header=False)
        for name in files.names():
            table.add_row(Text(name), Text(files.summary(name)))
        console.print(table)
        return
    costs = recorded() if kind is student else {}
    for name in kind.names():
        signature = kind.signature(name)
        console.print(Text.assemble((name, "bold"), f"  {costs[name]}" if name in costs else ""))
        for line in (signature.summary, *map(described, signature.settings)):
            console.print(Text(fill(line, console.width, initial_indent=INDENT, subsequent_indent=2 * INDENT)))
    if others := sorted(kind.foreign()):
        console.print(Text(fill(f"and torchvision's: {', '.join(others)}", console.width, subsequent_indent=INDENT)))
