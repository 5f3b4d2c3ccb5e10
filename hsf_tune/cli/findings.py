"""Show what the data gate found: faults by file, warnings, and a table for each dataset.

The same for `check.py` and for the start of `tune.py` and `finetune.py`, which go through
`gate`. What is a fault is decided in `data/checks/study.py`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from hsf_tune.cli.shell import Screen
from hsf_tune.config import Config
from hsf_tune.data.cases import Fault
from hsf_tune.data.checks.inventory import DatasetTable, Volume
from hsf_tune.data.checks.study import Findings, Purpose, check_data
from hsf_tune.errors import DataError, printable
from hsf_tune.model.labels import find_merging

MOST_SIZES = 4
TOLD_IN_FULL = 3  # faults of a kind
LOG_WIDTH = 1000  # characters
MOST_ROWS = 40  # of cases in a printed table; the file written beside it holds all


def gate(
    config: Config,
    console: Screen,
    *,
    purpose: Purpose | None = None,
    workers: int | None = None,
    least_side: int | None = None,
) -> Findings:
    """Check the data of a run; show its warnings here, and its faults on standard error.

    Raises:
        DataError: there are faults; each has been shown.
    """
    findings = inspect(config, console, purpose=purpose, workers=workers, least_side=least_side)
    show_warnings(findings, console)
    if findings.faults:
        show_faults(findings, config, errors())
        raise refusal(findings)
    return findings


def inspect(
    config: Config,
    console: Screen,
    *,
    purpose: Purpose | None = None,
    workers: int | None = None,
    least_side: int | None = None,
) -> Findings:
    """`check_data` with a progress bar."""
    with _bar(console) as bar:
        task = bar.add_task("Checking the data", total=None)
        return check_data(
            config,
            workers=workers,
            purpose=purpose,
            place_labels=find_merging,
            least_side=least_side,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


def errors() -> Screen:
    """Standard error; in a log file lines are as long as their sentence."""
    console = Screen(stderr=True, soft_wrap=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = LOG_WIDTH
    return console


def refusal(findings: Findings) -> DataError:
    """The one line that ends a run with faults, after they were shown."""
    n, places = len(findings.faults), len({fault.where for fault in findings.faults})
    return DataError(
        f"{_count(n, 'fault')} in {_count(places, 'place')}, listed above. Nothing was trained."
    )


def show_faults(findings: Findings, config: Config, console: Screen) -> None:
    """Faults by file or configuration key: what was found, what was expected, what to do.

    What was expected and what to do is said for the first few faults of a kind.
    """
    main = Path(config.datasets.main_path)
    groups: dict[str, list[Fault]] = {}
    for fault in findings.faults:
        groups.setdefault(fault.where, []).append(fault)
    head = Text("\n").append(_count(len(findings.faults), "fault"), style="bold red")
    head.append(f" in {_count(len(groups), 'place')}; files are below {printable(str(main))}")
    console.print(head)
    told: Counter[tuple[str, str]] = Counter()
    for where, faults in groups.items():
        console.print(Text(_below(where, main), style="bold"))
        for fault in faults:
            told[fault.expected, fault.todo] += 1
            short = told[fault.expected, fault.todo] > TOLD_IN_FULL
            text = Text(fault.found) if short else _sentences(fault)
            console.print(Padding(text, (0, 0, 0, 2), expand=False))


def show_warnings(findings: Findings, console: Screen) -> None:
    """What does not stop a run."""
    if not findings.warnings:
        return
    console.print(Text("\n").append(_count(len(findings.warnings), "warning"), "bold yellow"))
    rows = Table.grid(padding=(0, 1))
    for sentence in findings.warnings:
        rows.add_row(" -", Text(sentence))
    console.print(rows)


def show_tables(findings: Findings, console: Screen) -> None:
    """Who and what each dataset holds."""
    for table in findings.table.values():
        if table.subjects:
            console.print(dataset_table(table, findings))


def dataset_table(table: DatasetTable, findings: Findings) -> RenderableType:
    """Subjects, cases, voxel sizes, shapes, and the volume of each label of each case."""
    head = Table.grid(padding=(0, 2))
    head.add_column(style="bold")
    head.add_column()
    for name, text in _summary(table):
        head.add_row(name, Text(text))
    title = Text(f"\n{table.dataset}", style="bold underline")
    return Group(title, head, *_volume_tables(table, findings))


def _summary(table: DatasetTable) -> Iterator[tuple[str, str]]:
    n = len(table.subjects)
    yield "Subjects", f"{n}: {_some(table.subjects, 12)}"
    yield (
        "Cases",
        f"{sum(table.cases.values())}: "
        + ", ".join(
            f"{count} {pattern}" + (f" ({side})" if side and side not in pattern else "")
            for (pattern, side), count in table.cases.items()
        ),
    )
    yield "Voxel sizes, mm", _sizes(table.spacings_mm)
    yield "Voxels", _sizes(table.shapes)


def _sizes(counts: Mapping[Any, int]) -> str:
    """Each size with its number of cases; the range along each axis where there are many."""
    if len(counts) <= MOST_SIZES:
        return ", ".join(f"{_times(size)} ({n})" for size, n in counts.items())
    ranges = [(min(axis), max(axis)) for axis in zip(*counts, strict=True)]
    each = [f"{low:g}" if low == high else f"{low:g}-{high:g}" for low, high in ranges]
    return f"{' x '.join(each)} ({len(counts)} different)"


def _volume_tables(table: DatasetTable, findings: Findings) -> Iterator[RenderableType]:
    rows = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    rows.add_column("mm3", no_wrap=True)
    for name in table.labels_names.values():
        rows.add_column(Text(name), justify="right", no_wrap=True)
    cases = [case for case in findings.cases if case.id in table.volumes]
    for case in sorted(cases, key=lambda c: c.subject)[:MOST_ROWS]:
        who = f"{case.subject.split('/', 1)[1]} {case.pattern}"
        volumes = table.volumes[case.id]
        rows.add_row(Text(who), *(_cell(volumes[label]) for label in table.labels_names))
    yield rows
    if len(cases) > MOST_ROWS:
        yield Text(f"... and {len(cases) - MOST_ROWS} more", style="dim")
    if table.outliers():
        text = "! further from the median than usual: robust z beyond 3.5"
        yield Text(text, style="yellow")


def _cell(volume: Volume) -> Text:
    if volume.mm3 == 0:
        return Text("none", style="yellow")
    return Text(f"{volume.mm3:.0f}!" if volume.outlier else f"{volume.mm3:.0f} ",
                style="bold yellow" if volume.outlier else "")  # fmt: skip


def _sentences(fault: Fault) -> Text:
    text = Text(fault.found)
    if fault.expected:
        text.append(f"\nexpected {fault.expected}", style="dim")
    if fault.todo:
        text.append("\n> ", style="green").append(fault.todo)
    return text


def _below(where: str, main: Path) -> str:
    """A file's path below main_path; anything else as it is."""
    path = Path(where)
    return str(path.relative_to(main)) if path.is_relative_to(main) and path != main else where


def _bar(console: Screen) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _some(words: Iterable[str], most: int) -> str:
    listed = list(words)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def _times(size: Iterable[float]) -> str:
    return " x ".join(f"{n:g}" for n in size)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
