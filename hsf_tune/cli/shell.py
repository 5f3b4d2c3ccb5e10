"""How a command ends: its exit code, and what a user sees of an error."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.markup import escape

from hsf_tune.errors import HsfTuneError

INTERRUPTED = 130


class Stopped(BaseException):
    """The user or the system asked for an end; what is on disk is whole.

    No KeyboardInterrupt, which Lightning would turn into an exit of its own.

    Attributes:
        exit_code: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def stopping() -> Iterator[None]:
    """Raise `Stopped` at the first Ctrl-C or SIGTERM; a second one ends the process as usual."""
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    def stop(number: int, frame: FrameType | None) -> None:
        restore()
        raise Stopped(number)

    for number in usual:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()


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
