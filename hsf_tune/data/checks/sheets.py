"""Draw contact sheets: every case of a dataset with the outlines of its labels.

Which page a case is on and what its title says is decided here; how it is drawn, in
`figures`. Faulty cases are drawn too, as far as image and labels can be laid over one
another: a mirrored or shifted label map is seen sooner than it is read about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from nibabel.orientations import io_orientation

from hsf_tune import figures
from hsf_tune.config import Config
from hsf_tune.data.cases import Case
from hsf_tune.data.checks.facts import in_ras
from hsf_tune.data.checks.study import Findings
from hsf_tune.data.names import file_safe
from hsf_tune.data.rawfile import BadFile, read_raw
from hsf_tune.run_folder import RunFolder

CASES_A_PAGE = 48
LARGEST_SIDE = 256  # voxels; larger volumes are drawn thinned out
MOST_COLUMNS = 4


def draw_sheets(
    findings: Findings,
    config: Config,
    folder: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write `contact-sheet-<dataset>[-<page>].png` files, subject by subject.

    Args:
        folder: created where it is missing.
        progress: called after each case with the cases drawn and the cases in all.

    Returns:
        The files, in the order of datasets and pages.

    Raises:
        OSError: the folder can't be written.
    """
    paths: list[Path] = []
    drawn = 0

    def count() -> None:
        nonlocal drawn
        drawn += 1
        if progress is not None:
            progress(drawn, len(findings.cases))

    for name, dataset in config.datasets.datasets.items():
        cases = sorted((c for c in findings.cases if c.dataset == name), key=lambda c: c.subject)
        pages = _pages(cases)
        for number, page in enumerate(pages, start=1):
            cells = _cells(page, findings, config, count)
            first = next(cells, None)
            if first is None:
                continue
            title = f"{name}: labels outlined on each case"
            if len(pages) > 1:
                title += f", page {number} of {len(pages)}"
            sheet = figures.contact_sheet(
                _chained(first, cells),
                title=title,
                labels_names=dataset.labels_names,
                columns=_columns(cases),
            )
            suffix = f"-{number}" if len(pages) > 1 else ""
            path = RunFolder(folder).sheet(f"{file_safe(name)}{suffix}")
            paths.append(figures.save(sheet, path))
    return paths


def _pages(cases: Sequence[Case]) -> list[list[Case]]:
    """Pages of about equal length; a subject's cases stay on one where they fit."""
    per_page = math.ceil(len(cases) / max(1, math.ceil(len(cases) / CASES_A_PAGE)))
    pages: list[list[Case]] = [[]]
    for case in cases:
        same_subject = pages[-1] and pages[-1][-1].subject == case.subject
        full = len(pages[-1]) >= per_page
        if full and not (same_subject and len(pages[-1]) < per_page + MOST_COLUMNS):
            pages.append([])
        pages[-1].append(case)
    return pages


def _columns(cases: Sequence[Case]) -> int:
    """One row a subject, where that makes a row of sensible length."""
    n_subjects = len({case.subject for case in cases})
    per_subject = len(cases) // max(1, n_subjects)
    even = per_subject * n_subjects == len(cases)
    if even and per_subject in (3, 4):
        return per_subject
    return MOST_COLUMNS


def _cells(
    cases: Sequence[Case], findings: Findings, config: Config, count: Callable[[], None]
) -> Iterator[figures.Cell]:
    outliers = {c for t in findings.table.values() for c, _, _ in t.outliers()}
    for case in cases:
        cell = _cell(case, config, _mark(case, findings, outliers))
        count()
        if cell is not None:
            yield cell


def _mark(case: Case, findings: Findings, outliers: set[str]) -> str:
    if case.id not in findings.facts:
        return " - FAULT"
    return " - unusual volume" if case.id in outliers else ""


def _cell(case: Case, config: Config, mark: str) -> figures.Cell | None:
    """None where image and labels can't be laid over one another."""
    dataset = config.datasets.datasets[case.dataset]
    try:
        mri, label = read_raw(case.mri), read_raw(case.label)
    except BadFile:
        return None
    image, labels = in_ras(mri, label, dataset.labels, len(dataset.labels_names))
    if image.shape != labels.shape:
        return None
    spacing = np.array(mri.spacing_mm)[np.argsort(io_orientation(mri.affine)[:, 0])]
    step = max(1, math.ceil(max(image.shape) / LARGEST_SIDE))
    thin = (slice(None, None, step),) * 3
    name = f"{case.subject.split('/', 1)[1]} {case.pattern}{mark}"
    return figures.Cell(name, image[thin], labels[thin], (spacing * step).tolist())


def _chained(first: figures.Cell, others: Iterator[figures.Cell]) -> Iterator[figures.Cell]:
    yield first
    yield from others
