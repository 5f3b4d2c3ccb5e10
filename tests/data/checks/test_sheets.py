"""Contact sheets hold every case that can be drawn, on as many pages as are legible."""

from __future__ import annotations

import numpy as np

from hsf_tune.data.checks import sheets
from hsf_tune.data.checks.study import check_data


def _drawn(study, folder, monkeypatch):
    """The titles of each page, and the files."""
    pages = []
    real = sheets.figures.contact_sheet

    def spy(cells, **look):
        cells = list(cells)
        pages.append([cell.title for cell in cells])
        return real(cells, **look)

    monkeypatch.setattr(sheets.figures, "contact_sheet", spy)
    config = study.config()
    return sheets.draw_sheets(check_data(config), config, folder), pages


def test_many_cases_go_on_several_pages_and_none_is_left_out(study, tmp_path, monkeypatch):
    monkeypatch.setattr(sheets, "CASES_A_PAGE", 3)
    files, pages = _drawn(study, tmp_path / "out", monkeypatch)
    assert [f.name for f in files] == [f"contact-sheet-study-{i}.png" for i in (1, 2, 3)]
    assert [title for page in pages for title in page] == [
        f"{subject} t2" for subject in study.subjects
    ]
    assert all(file.stat().st_size > 10_000 for file in files)


def test_a_faulty_case_is_drawn_and_marked_and_an_unreadable_one_is_passed_over(
    study, tmp_path, monkeypatch
):
    """sub-01 is mirrored, sub-02 can't be read, sub-03 holds a label that is not mapped."""
    mirrored = study.affine @ np.diag([-1, 1, 1, 1])
    study.write("study/sub-01/seg.nii.gz", study.values("study/sub-01/seg.nii.gz"), mirrored)
    study.path("study/sub-02/t2.nii.gz").write_bytes(b"")
    labels = study.values("study/sub-03/seg.nii.gz").copy()
    labels[0, 0, 0] = 9
    study.write("study/sub-03/seg.nii.gz", labels)
    _, (titles,) = _drawn(study, tmp_path / "out", monkeypatch)
    assert titles[:3] == ["sub-01 t2 - FAULT", "sub-03 t2 - FAULT", "sub-04 t2"]


def test_no_readable_case_gives_no_sheet(study, tmp_path, monkeypatch):
    for subject in study.subjects:
        study.path(f"study/{subject}/t2.nii.gz").write_bytes(b"")
    files, pages = _drawn(study, tmp_path / "out", monkeypatch)
    assert (files, pages) == ([], [])
