"""How a command ends: its exit code, and what a user sees of an error."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape

from hsf_tune.errors import HsfTuneError

INTERRUPTED = 130


def run_command(command: Callable[[], int]) -> None:
    """Run a command and exit: errors of the user's input in a sentence, ours with traceback."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        code = command()
    except HsfTuneError as error:
        Console(stderr=True, soft_wrap=True).print(
            f"[bold red]Error:[/] {escape(str(error))}", highlight=False
        )
        code = 1
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.stdout.flush()
    sys.exit(code)
