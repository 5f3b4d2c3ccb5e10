"""The page in a real browser, at a laptop's width and a projector's."""

import re

import pytest

from hsf_tune.report import write_report

PLOTS = (
    "intervals", "subjects", "curves", "race", "strategies", "importance", "cost", "volumes",
)  # fmt: skip
MEASURE = """<script>addEventListener('load', () => setTimeout(() => {
  const root = document.documentElement, mark = document.createElement('i');
  mark.id = 'measured';
  mark.dataset.overflow = root.scrollWidth - root.clientWidth;
  mark.dataset.tables = [...document.querySelectorAll('.scroll')]
    .filter(box => box.scrollWidth > box.clientWidth).length;
  mark.dataset.drawn = [...document.querySelectorAll('.plotly-graph-div')]
    .filter(plot => plot.querySelector('.main-svg') && plot.clientHeight > 100)
    .map(plot => plot.id).join(' ');
  document.body.append(mark);
}, 2000))</script>"""


@pytest.mark.parametrize(
    ("kind", "width"), [("finished_run", 1366), ("finished_run", 1920), ("explored_run", 1366)]
)
def test_page_opens_without_errors_or_scrolling_sideways(kind, width, request, tmp_path, open_page):
    """No console errors, every figure drawn, nothing wider than the window."""
    report = write_report(request.getfixturevalue(kind))
    page = tmp_path / "page.html"
    page.write_text(report.html.read_text().replace("</body>", f"{MEASURE}</body>"))
    document, errors = open_page(page.as_uri(), width)
    assert errors == []
    measured = re.search(r'<i id="measured"[^>]*>', document)
    assert measured, "the page's scripts did not run to their end"
    found = dict(re.findall(r'data-(\w+)="([^"]*)"', measured.group()))
    assert found["overflow"] == "0"
    assert found["tables"] == "0"
    plots = PLOTS if kind == "finished_run" else [p for p in PLOTS if p not in PLOTS[:2]]
    assert found["drawn"].split() == [f"plot-{name}" for name in plots]
    assert report.verdict.sentence in document
