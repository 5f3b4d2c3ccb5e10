"""`python finetune.py [overrides ...]`: one strategy, once."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hsf_tune.cli.shell import Screen, parsed, run_command

EXAMPLES = """examples:
  python finetune.py
  python finetune.py finetuning.mode=encoder finetuning.depth=2 models.lr=3e-3
  python finetune.py datasets=custom_dataset datasets.main_path=/data/hsf \\
      finetuning.out_channels=8 models.lr=1e-3 models.use_forgiving_loss=False
  python finetune.py datasets=/data/hsf/my_dataset.yaml
  python finetune.py strategy=outputs/NAME/best_strategy.yaml      # repeat a search's winner
A run that was stopped goes on when it is called again with the same --name.
"""


def main(argv: list[str] | None = None) -> None:
    """The command; exits with 0, 1 (an error that the user can mend), 130 or 143 (stopped)."""
    words = sys.argv[1:] if argv is None else argv
    run_command(lambda: _command(words))


def _command(words: list[str]) -> int:
    args = parsed(_parser(), words)
    from hsf_tune.cli.training import finetune  # what it imports takes seconds; --help should not

    return finetune(args, words, Screen())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="finetune.py",
        description="Finetune HSF's segmentation network once, with one strategy.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="configuration overrides")
    parser.add_argument("--name", help="of the run; default: finetune-DATASET-TIME")
    parser.add_argument("--output", help="folder of all runs; default: outputs")
    parser.add_argument("--seed", type=int, help="default: 42")
    parser.add_argument("--threads", type=int, help="CPU threads; default: all cores")
    parser.add_argument("--config-dir", type=Path, help="folder with datasets/NAME.yaml of yours")
    return parser
