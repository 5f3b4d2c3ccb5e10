"""The page in a real browser: its first screen, all of it, and on paper."""

import re
import subprocess

import pytest

from hsf_tune.report import write_report

PLOTS = (
    "levels", "intervals", "subjects", "curves", "curves-folded", "race", "strategies",
    "importance", "cost", "volumes",
)  # fmt: skip
MEASURE = """<script>addEventListener('load', () => setTimeout(() => {
  const root = document.documentElement, mark = document.createElement('i');
  const drawn = () => [...document.querySelectorAll('.plotly-graph-div, .drawing')]
    .filter(plot => plot.clientHeight > 100 && plot.clientWidth > 300)
    .filter(plot => plot.naturalWidth || plot.querySelector('.main-svg'))
    .map(plot => plot.id).join(' ');
  const bottom = id => Math.ceil(document.getElementById(id)?.getBoundingClientRect().bottom ?? 0);
  mark.id = 'measured';
  mark.dataset.drawn = drawn();
  mark.dataset.bottoms = ['verdict', 'recommendation', 'gain', 'picture'].map(bottom).join(' ');
  mark.dataset.pictures = [...document.querySelectorAll('#picture img')]
    .filter(image => image.naturalWidth && image.clientHeight > 80).length;
  mark.dataset.ground = getComputedStyle(document.body).backgroundColor;
  document.querySelectorAll('details').forEach(box => { box.open = true; });
  setTimeout(() => {
    mark.dataset.unfolded = drawn();
    dispatchEvent(new Event('beforeprint'));
    mark.dataset.paper = [...new Set([...document.querySelectorAll('.plotly-graph-div')]
      .map(plot => plot.layout.width))].join(' ');
    dispatchEvent(new Event('afterprint'));
    mark.dataset.overflow = root.scrollWidth - root.clientWidth;
    mark.dataset.tables = [...document.querySelectorAll('.scroll')]
      .filter(box => box.scrollWidth > box.clientWidth).length;
    document.body.append(mark);
  }, 1000);
}, 2000))</script>"""


@pytest.fixture
def measure(tmp_path, open_page):
    """Write a run's report and open it: (what was measured, what the console said)."""

    def measure(folder, width=1366, **how):
        page = tmp_path / "page.html"
        html = write_report(folder).html.read_text()
        page.write_text(html.replace("</body>", f"{MEASURE}</body>"))
        document, errors = open_page(page.as_uri(), width, **how)
        mark = re.search(r'<i id="measured"[^>]*>', document)
        assert mark, "the page's scripts did not run to their end"
        return dict(re.findall(r'data-(\w+)="([^"]*)"', mark.group())), errors

    return measure


@pytest.mark.parametrize(
    ("kind", "width"), [("finished_run", 1366), ("finished_run", 1920), ("explored_run", 1366)]
)
def test_page_opens_without_errors_or_scrolling_sideways(kind, width, request, measure):
    """No console errors, every figure drawn, also what is unfolded, nothing wider than the window;
    for paper all figures are redrawn at one width."""
    measured, errors = measure(request.getfixturevalue(kind), width)
    assert errors == []
    assert measured["overflow"] == "0"
    assert measured["tables"] == "0"
    confirmed = ("levels", "intervals", "subjects")
    shown = [p for p in PLOTS if kind == "finished_run" or p not in confirmed]
    assert measured["drawn"].split() == [f"plot-{name}" for name in shown]
    assert measured["paper"] == "970"
    assert measured["unfolded"] == measured["drawn"]


@pytest.mark.parametrize("dark", [False, True])
def test_first_screen_of_a_laptop_holds_the_answer(dark, run_with_images, measure):
    """At 1366 x 768: verdict, recommendation, gain, and the picture of arms and of a case."""
    measured, errors = measure(run_with_images, height=768, dark=dark)
    assert errors == []
    bottoms = [int(b) for b in measured["bottoms"].split()]
    assert all(0 < bottom <= 768 for bottom in bottoms), bottoms
    assert measured["pictures"] == "3"
    red = int(re.search(r"\d+", measured["ground"]).group())
    assert red < 60 if dark else red > 200


def test_page_prints_on_a4(run_with_images, tmp_path, browser):
    """Some A4 pages, in the browser's own way."""
    html, pdf = write_report(run_with_images).html, tmp_path / "report.pdf"
    command = [*browser, "--virtual-time-budget=6000", f"--print-to-pdf={pdf}", html.as_uri()]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    written = pdf.read_bytes()
    boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", written)
    assert 4 <= len(boxes) <= 12
    assert {(round(float(w)), round(float(h))) for w, h in boxes} == {(595, 842)}
