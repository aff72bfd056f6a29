"""The console that all output for users goes to."""

import logging
import os
import warnings

from rich.console import Console
from rich.logging import RichHandler


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave the end to `distill.cli.guard`: Rich would exit with an error where a reader has what it wants."""
        raise


def new_console() -> Console:
    """Silent in all processes of a training but the first; prints to what is standard output at that moment, texts as
    they are: paths and names may hold brackets."""
    quiet = os.environ.get("LOCAL_RANK", "0") != "0"
    made = _Console(quiet=quiet, markup=False, highlight=False, soft_wrap=True, emoji=False)
    if not made.width or (not made.is_terminal and "COLUMNS" not in os.environ):
        made.width = 120  # output to a file is not cut to 80 columns
    return made


console = new_console()


def quiet_libraries(*, debug: bool = False) -> None:
    """Show our own log lines, with ``debug`` all of them; hide tips and notes of libraries."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_handler()])
    logging.getLogger("distill").setLevel(logging.DEBUG if debug else logging.INFO)
    for name in ("pytorch_lightning", "lightning_fabric"):  # where they are imported already, each has its own handlers
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for message in (
        ".*num_workers.*",
        ".*smaller than the logging interval.*",
        ".*sync_dist=True.*",
        ".*many workers.*",
        ".*exists and is not empty.*",
        ".*LeafSpec.*",
        ".*in eval mode at the start of training.*",
        ".*overridden `transfer_batch_to_device`.*",
    ):
        warnings.filterwarnings("ignore", message)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)


def _handler() -> RichHandler:
    handler = RichHandler(console=console, show_time=False, show_path=False, show_level=False)
    # Lightning sets its own level when it is imported, so its notes are filtered here.
    handler.addFilter(lambda record: record.name.startswith("distill") or record.levelno >= logging.ERROR)
    return handler
