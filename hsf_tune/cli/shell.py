"""How a command begins and ends: its flags, its screen, its exit code, what is said of an error."""

from __future__ import annotations

import argparse
import errno
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from hsf_tune.credentials import redacted
from hsf_tune.errors import ConfigError, HsfTuneError, printable
from hsf_tune.interrupt import Stopped, interruptible

_PLACES = {  # errors of the system that the user can mend
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT,
    errno.ENOTDIR,
}  # fmt: skip


class Screen(Console):
    """A console on which names are only text: no markup, no control codes, no passwords."""

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = True) -> None:
        super().__init__(
            stderr=stderr, soft_wrap=soft_wrap, markup=False, highlight=False, emoji=False
        )

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """As Console, with what a terminal would obey replaced by what it shows."""
        for text, style, control in super().render(renderable, options):
            seen = text if control else redacted(printable(text))
            yield Segment(seen, style, control)

    def say(self, sentence: str, label: str = "", style: str = "yellow") -> None:
        """Print a sentence, behind a coloured word if there is one (Note, Warning)."""
        self.print(Text.assemble((f"{label}: " if label else "", style), redacted(sentence)))


def run_command(command: Callable[[], int]) -> None:
    """Run a command and exit: errors of the user's input in a sentence, ours with traceback."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    screen = Screen(stderr=True)
    try:
        with interruptible():
            code = command()
    except HsfTuneError as error:
        screen.say(str(error), "Error", "bold red")
        code = 1
    except OSError as error:
        if error.errno not in _PLACES:
            raise
        screen.say(_unusable(error), "Error", "bold red")
        code = 1
    except Stopped as stopped:
        screen.say(
            f"Stopped ({stopped}). What was written is whole; the same command starts again."
        )
        code = stopped.exit_code
    except KeyboardInterrupt:
        code = 130
    sys.stdout.flush()
    sys.exit(code)


def parsed(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """The flags and words of a command line.

    Raises:
        ConfigError: a flag was given with nothing behind it, such as an unset variable.
    """
    args = parser.parse_intermixed_args(words)
    values: dict[str, Any] = vars(args)
    empty = [name for name, value in values.items() if value == ""]
    if empty:
        flag = f"--{empty[0].replace('_', '-')}"
        raise ConfigError(f"{flag} is empty; expected a value behind it, or no {flag} at all.")
    return args


def _unusable(error: OSError) -> str:
    place = error.filename if error.filename is not None else "A file"
    return (
        f"{place} can't be used: {error.strerror}. Choose another place for what this command"
        " writes (--output, --to, HSF_TUNE_CACHE), or a shorter name."
    )
