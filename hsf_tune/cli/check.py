"""`python scripts/check.py [overrides ...]`: every fault of a dataset at once, and a look at it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.text import Text

from hsf_tune.cli.compose import compose_config, parse_overrides
from hsf_tune.cli.findings import (
    errors,
    inspect,
    refusal,
    show_faults,
    show_tables,
    show_warnings,
)
from hsf_tune.cli.shell import Screen, parsed, run_command
from hsf_tune.config import Config
from hsf_tune.data.checks import Findings
from hsf_tune.data.demo import ensure_demo
from hsf_tune.data.names import file_safe
from hsf_tune.data.sheets import draw_sheets
from hsf_tune.files import write_text

EXAMPLES = """examples:
  python scripts/check.py datasets=/data/hsf/my_dataset.yaml
  python scripts/check.py datasets=custom_dataset datasets.main_path=/data/hsf \\
      finetuning.out_channels=8 models.use_forgiving_loss=False

Give the overrides that you would give to tune.py or finetune.py: the labels are checked against
the network's channels, and the splits are tried out. Warnings do not stop a run. The exit code
is 1 if there is any fault, else 0.
"""


def main(argv: list[str] | None = None) -> None:
    """The command; exits with 0, 1 (there are faults) or 130 (Ctrl-C)."""
    words = sys.argv[1:] if argv is None else argv
    run_command(lambda: _check(words))


def _check(words: list[str]) -> int:
    args = parsed(_parser(), words)
    config, _ = compose_config(parse_overrides(args.overrides), config_dir=args.config_dir)
    console = Screen(soft_wrap=False)
    if config.datasets.base == "demo":
        paths = {name: d.path for name, d in config.datasets.datasets.items()}
        ensure_demo(config.datasets.main_path, paths)
    findings = inspect(config, console, workers=args.workers)
    show_tables(findings, console)
    show_warnings(findings, console)
    if findings.faults:
        show_faults(findings, config, errors())
    folder = Path(args.output) if args.output else _folder(config)
    _write(findings, config, folder, console, sheets=not args.no_sheets)
    if findings.faults:
        raise refusal(findings)
    n = len(findings.cases)
    console.print(Text.assemble(("\nNo fault", "bold green"), f" in {n} cases; ready to train."))
    return 0


def _write(
    findings: Findings, config: Config, folder: Path, console: Screen, *, sheets: bool
) -> None:
    """`check.json` and the contact sheets."""
    plain = {"faults": [str(fault) for fault in findings.faults], **findings.to_dict()}
    path = folder / "check.json"
    write_text(path, json.dumps(plain, indent=1, ensure_ascii=False))
    console.print(f"\nTables as data: {path}", soft_wrap=True)
    if sheets and findings.cases:
        with console.status("Drawing every case"):
            pages = draw_sheets(findings, config, folder)
        for page in pages:
            console.print(f"Contact sheet: {page}", soft_wrap=True)


def _folder(config: Config) -> Path:
    names = "-".join(file_safe(name) for name in config.datasets.datasets)
    return Path(config.output) / f"check-{names[:60]}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="check.py",
        description="Check a dataset before anything trains on it: read every file, list every"
        " fault with what to do about it, and draw every case with its labels.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value",
        help="datasets=NAME or datasets=FILE.yaml, and any other setting",
    )  # fmt: skip
    parser.add_argument("--output", help="folder of table and sheets; default: outputs/check-NAME")
    parser.add_argument("--workers", type=int, help="threads that read; default: one a CPU")
    parser.add_argument("--no-sheets", action="store_true", help="don't draw the cases")
    parser.add_argument("--config-dir", type=Path, help="folder with datasets/NAME.yaml of yours")
    return parser
