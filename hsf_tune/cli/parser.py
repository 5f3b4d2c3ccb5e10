"""One skeleton for every command line: its help, its words, its end.

What a command does is imported once its words are read: that takes seconds, and `--help`
should not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from hsf_tune.cli.shell import Screen, parsed, run_command

Add = Callable[..., Any]  # `add_argument` of a parser


@dataclass(frozen=True)
class Command:
    """What a command is called with, and what it does.

    Attributes:
        about: one sentence.
        flow: "module:function", called with the parsed words, the words as they were typed and a
            screen; it returns the exit code.
        arguments: adds them to a parser.
        examples: shown below the help; `%(prog)s` stands for the command as it is typed here.
    """

    about: str
    flow: str
    arguments: Callable[[Add], None]
    examples: str = ""

    def run(self, prog: str, words: Sequence[str] | None = None) -> None:
        """Run it and exit: 0, 1 (what the user can mend), 130 or 143 (stopped), 2 (not understood).

        Args:
            prog: the command as it is typed.
            words: what follows it; default: those of this process.
        """
        typed = list(sys.argv[1:] if words is None else words)
        run_command(lambda: self._flow(prog, typed))

    def _flow(self, prog: str, words: list[str]) -> int:
        args = parsed(self.parser(prog), words)
        code: int = resolve_name(self.flow)(args, words, Screen())
        return code

    def parser(self, prog: str) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=prog,
            description=self.about,
            epilog=self.examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.arguments(parser.add_argument)
        return parser
