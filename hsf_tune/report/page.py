"""Put pieces together into one HTML page that needs nothing else, not even a network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files

import plotly.graph_objects as go
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from hsf_tune.report.review import Picture
from hsf_tune.report.style import PLOT_CONFIG
from hsf_tune.report.tables import Table


@dataclass
class Page:
    """A page under construction: `section` opens a part, the others add to it."""

    title: str
    head: list[str] = field(default_factory=list)
    sections: list[tuple[str, str]] = field(default_factory=list)  # (anchor, heading)
    body: list[str] = field(default_factory=list)
    n_plots: int = 0

    def section(self, heading: str) -> None:
        anchor = re.sub(r"[^a-z]+", "-", heading.lower()).strip("-")
        self.sections.append((anchor, heading))
        self.body.append(f'<h2 id="{anchor}">{escape(heading)}</h2>')

    def heading(self, text: str) -> None:
        self.body.append(f"<h3>{escape(text)}</h3>")

    def text(self, text: str, kind: str = "") -> None:
        self.body.append(f'<p class="{kind}">{escape(text)}</p>')

    def items(self, texts: Sequence[str]) -> None:
        self.body.append("<ul>" + "".join(f"<li>{escape(t)}</li>" for t in texts) + "</ul>")

    def code(self, text: str) -> None:
        self.body.append(f"<pre>{escape(text)}</pre>")

    def table(self, table: Table, *, stress: str = "strong", words: bool = False) -> None:
        """A table; rows that it stresses get the class `stress`."""
        kinds = [' class="text"' if _is_words(c) else "" for c in zip(*table.rows, strict=True)]
        kinds = kinds or [""] * len(table.heads)
        head = "".join(
            f"<th{kind}>{escape(h)}</th>" for kind, h in zip(kinds, table.heads, strict=True)
        )
        rows = []
        for i, row in enumerate(table.rows):
            strong = f' class="{stress}"' if i in table.strong else ""
            cells = "".join(
                f"<td{kind}>{escape(c)}</td>" for kind, c in zip(kinds, row, strict=True)
            )
            rows.append(f"<tr{strong}>{cells}</tr>")
        kind = ' class="words"' if words else ""
        self.body.append(
            f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )

    def plot(self, name: str, figure: go.Figure) -> None:
        """An interactive figure; `name` becomes its element's id."""
        self.n_plots += 1
        html = to_html(
            figure,
            full_html=False,
            include_plotlyjs=False,
            config=PLOT_CONFIG,
            div_id=f"plot-{name}",
            default_width="100%",
            default_height=f"{figure.layout.height}px",
        )
        self.body.append(f'<div class="plot">{html}</div>')

    def pictures(self, pictures: Sequence[Picture]) -> None:
        cells = [
            f'<figure><img alt="{escape(p.caption)}" src="data:image/png;base64,{p.png_base64}">'
            f"<figcaption>{escape(p.caption)}</figcaption></figure>"
            for p in pictures
        ]
        self.body.append(f'<div class="pictures">{"".join(cells)}</div>')

    def html(self) -> str:
        """The whole page, plotly.js and styles inside."""
        css = files("hsf_tune.report").joinpath("page.css").read_text("utf-8")
        links = "".join(f'<a href="#{a}">{escape(h)}</a>' for a, h in self.sections)
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<link rel="icon" href="data:,">\n'
            f"<title>{escape(self.title)}</title>\n<style>\n{css}</style>\n"
            f"<script>{get_plotlyjs()}</script>\n</head>\n<body>\n"
            f"<header>{''.join(self.head)}<nav>{links}</nav></header>\n"
            f"<main>\n{chr(10).join(self.body)}\n</main>\n"
            "<footer>Written by hsf_tune from this run's records.</footer>\n</body>\n</html>\n"
        )


def _is_words(column: Sequence[str]) -> bool:
    """Whether a column of cells holds words rather than numbers."""
    return 2 * sum(bool(re.match("[A-Za-z]{2}", cell)) for cell in column) >= len(column)
