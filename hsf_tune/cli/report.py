"""`python scripts/report.py outputs/NAME`: write a run's report again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hsf_tune.cli.shell import Screen, parsed, run_command
from hsf_tune.finetuning.strategy import describe
from hsf_tune.report import write_report


def main(argv: list[str] | None = None) -> None:
    """The command; exits with 0, 1 (an error that the user can mend), 130 or 143 (stopped)."""
    words = sys.argv[1:] if argv is None else argv
    run_command(lambda: _report(words))


def _report(words: list[str]) -> int:
    args = parsed(_parser(), words)
    report = write_report(args.folder, args.others)
    advice = report.verdict.recommendation
    chosen = describe(advice.strategy) if advice.strategy else "nothing yet"
    screen = Screen()
    screen.say(report.verdict.sentence)
    screen.say(f"Recommended: {chosen}. {advice.reason}\nReport: {report.html}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="report.py", description="Write report.html and report.json of a run again."
    )
    parser.add_argument("folder", type=Path, help="the run's folder, for example outputs/NAME")
    parser.add_argument("others", type=Path, nargs="*", help="runs to compare it with")
    return parser
