"""`check [overrides ...]`: every fault of a dataset at once, and a look at it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
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
from hsf_tune.cli.shell import Screen
from hsf_tune.config import Config
from hsf_tune.data.checks.sheets import draw_sheets
from hsf_tune.data.checks.study import Findings
from hsf_tune.data.demo.tasks import ensure_demo
from hsf_tune.data.names import file_safe
from hsf_tune.files import write_text


def check(args: argparse.Namespace, _: Sequence[str], console: Screen) -> int:
    """List every fault and draw every case; the exit code, 1 where there is a fault."""
    config = compose_config(parse_overrides(args.overrides), config_dir=args.config_dir)[0]
    console.soft_wrap = False  # of tables and warnings
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
