"""`python tune.py --space NAME [flags] [overrides ...]`: search for the best strategy."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from hsf_tune.cli.shell import Screen, parsed, run_command
from hsf_tune.errors import ConfigError
from hsf_tune.search.space_file import list_spaces

EXAMPLES = """examples:
  python tune.py --space quick                                  # the bundled demo, some minutes
  python tune.py --space default datasets=/data/study/dataset.yaml --dry-run
  python tune.py --space default datasets=/data/study/dataset.yaml --time-budget 8h
  python tune.py --space default datasets=custom_dataset datasets.main_path=/data/hsf \\
      finetuning.out_channels=8 models.use_forgiving_loss=False
  python tune.py --resume NAME                                  # go on after any interruption
  python tune.py --resume NAME --strategies-per-arm 20          # try more; the rest stays as it was
"""
_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?")


def main(argv: list[str] | None = None) -> None:
    """The command; exits with 0, 1 (an error that the user can mend), 130 or 143 (stopped)."""
    words = sys.argv[1:] if argv is None else argv
    run_command(lambda: _command(words))


def _command(words: list[str]) -> int:
    args = parsed(_parser(), words)
    console = Screen()
    if args.list_spaces:
        for name, about in list_spaces().items():
            console.print(f"{name:<10} {about}")
        return 0
    args.time_budget = _seconds(args.time_budget)
    from hsf_tune.cli.search import tune  # what it imports takes seconds; --help should not

    return tune(args, words, console)


def _seconds(text: str | None) -> float | None:
    """'2h', '90m', '1h30m' or '45s' in seconds."""
    if text is None:
        return None
    match = _TIME.fullmatch(text.strip().lower())
    if match is None or not any(match.groups()):
        raise ConfigError(f"--time-budget {text}: expected a time such as 2h, 90m or 1h30m.")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tune.py",
        description="Search for the best way to finetune HSF's segmentation network on your data.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("overrides", nargs="*", metavar="key=value", help="configuration overrides")
    add("--space", metavar="NAME_OR_PATH", help="search space; default: default")
    add("--list-spaces", action="store_true", help="show the spaces that come with the tool")
    add("--dry-run", action="store_true", help="show what would run, and for how long; run nothing")
    add("--name", help="of the run; default: tune-SPACE-DATASET-TIME")
    add("--output", metavar="DIR", help="folder of all runs; default: outputs")
    add("--resume", metavar="NAME", help="go on with an interrupted run")
    add("--retry-failed", action="store_true", help="with --resume: also trials that failed")
    add("--strategies-per-arm", type=int, metavar="N", help="strategies that each arm tries")
    budget = "stop after this time; what was cut can go on with --resume"
    add("--time-budget", metavar="2h", help=budget)
    add("--no-confirm", action="store_true", help="skip the comparison of the finalists")
    add("--max-concurrent", type=int, metavar="N", help="trials at a time; default: what fits")
    add("--cpus-per-trial", type=float, metavar="X", help="CPU threads of a trial; default: 1")
    add("--gpus-per-trial", type=float, metavar="X", help="share of a GPU; default: measured")
    add("--address", metavar="ADDR", help="of an existing Ray cluster, or 'auto'")
    add("--seed", type=int, metavar="N", help="default: 42")
    add("--config-dir", type=Path, metavar="DIR", help="folder with datasets/NAME.yaml of yours")
    return parser
