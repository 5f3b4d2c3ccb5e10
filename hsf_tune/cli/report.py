"""`report outputs/NAME [outputs/OTHER ...]`: write a run's report again, or compare runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from hsf_tune.cli.shell import Screen
from hsf_tune.report import write_report
from hsf_tune.strategy import describe


def report(args: argparse.Namespace, _: Sequence[str], console: Screen) -> int:
    """Write it and say what it comes to; the exit code."""
    written = write_report(args.folder, args.others)
    advice = written.verdict.recommendation
    chosen = describe(advice.strategy) if advice.strategy else "nothing yet"
    console.say(written.verdict.sentence)
    console.say(f"Recommended: {chosen}. {advice.reason}\nReport: {written.html}")
    return 0
