"""Where everything that a user reads is written."""

import logging
import os
import warnings

from rich.console import Console
from rich.logging import RichHandler

console = Console(quiet=os.environ.get("LOCAL_RANK", "0") != "0", highlight=False)


def quiet_libraries() -> None:
    """Our own log lines are shown; tips and deprecation notes of the libraries below us are not."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_handler()])
    logging.getLogger("distill").setLevel(logging.INFO)
    for message in (".*num_workers.*", ".*many workers.*", ".*LeafSpec.*", ".*in eval mode at the start of training.*"):
        warnings.filterwarnings("ignore", message)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)


def _handler() -> RichHandler:
    handler = RichHandler(console=console, show_time=False, show_path=False, show_level=False)
    # Lightning sets its own level when it is imported, so its notes can only be held back here.
    handler.addFilter(lambda record: record.name.startswith("distill") or record.levelno >= logging.ERROR)
    return handler
