"""The page in a real browser, at a laptop's width and a projector's."""

import re
import shutil
import subprocess

import pytest

from hsf_tune.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-unsafe-swiftshader", "--enable-logging=stderr", "--virtual-time-budget=6000",
    "--dump-dom",
)  # fmt: skip
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

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.mark.parametrize(
    ("kind", "width"), [("finished_run", 1366), ("finished_run", 1920), ("explored_run", 1366)]
)
def test_page_opens_without_errors_or_scrolling_sideways(kind, width, request, tmp_path):
    """No console errors, every figure drawn, nothing wider than the window."""
    report = write_report(request.getfixturevalue(kind))
    page = tmp_path / "page.html"
    page.write_text(report.html.read_text().replace("</body>", f"{MEASURE}</body>"))
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900",
         page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert [line for line in said if "GL Driver Message" not in line] == []  # software WebGL
    measured = re.search(r'<i id="measured"[^>]*>', done.stdout)
    assert measured, "the page's scripts did not run to their end"
    found = dict(re.findall(r'data-(\w+)="([^"]*)"', measured.group()))
    assert found["overflow"] == "0"
    assert found["tables"] == "0"
    plots = PLOTS if kind == "finished_run" else [p for p in PLOTS if p not in PLOTS[:2]]
    assert found["drawn"].split() == [f"plot-{name}" for name in plots]
    assert report.verdict.sentence in done.stdout
