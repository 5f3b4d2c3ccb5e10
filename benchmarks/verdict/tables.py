"""The measured rates as tables of docs/statistics.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.verdict.bars import FAMILIES, bars, mean
from benchmarks.verdict.searches import Setting
from benchmarks.verdict.settings import FOLDS, SUBJECTS, Rates, Row, read_rates

DOC = Path(__file__).resolve().parents[2] / "docs" / "statistics.md"
BEGIN, END = "<!-- rates: python -m benchmarks.verdict -->", "<!-- rates end -->"
Column = tuple[str, Callable[[Sequence[Row]], str]]


def tables(rows: Mapping[Setting, Rates]) -> str:
    """All tables in Markdown, from what was measured."""
    regular = {s: r for s, r in rows.items() if s.people != "failed"}
    parts = [
        "What must hold, and the worst that was seen",
        _bars_table(rows),
        "By family of settings, in %: false winners, mean over settings with equally good arms; false"
        " equivalents, mean over all; coverage, the lowest of any",
        _families_table(regular),
        "What is found, in %: 0.014 SD, spread 0.01",
        _power_table(regular),
        "One subject fails (it loses 0.3 under all strategies of the encoder), true 0.02, in %",
        _failed_table(rows),
        "The unchanged base is better than the best strategy by so much",
        _base_table(regular),
        "As many subjects as the report asks for, of undecided strategy claims, in %",
        _needed_table(regular),
    ]
    titles, found = parts[::2], parts[1::2]
    return "\n\n".join(f"*{title}*\n\n{table}" for title, table in zip(titles, found, strict=True))


def write_tables(rows: Mapping[Setting, Rates] | None = None, doc: Path = DOC) -> None:
    """Put the tables between their marks."""
    text = doc.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    made = tables(read_rates() if rows is None else rows)
    doc.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


def _bars_table(rows: Mapping[Setting, Rates]) -> str:
    found = bars(rows)
    cells = [
        (b.what, f"{'at most' if b.at_most else 'at least'} {b.bar:.1%}", f"{b.worst:.1%}", b.where)
        for b in found
    ]
    return _table(("", "bar", "worst", "where"), cells)


def _families_table(rows: Mapping[Setting, Rates]) -> str:
    families: dict[str, list[Row]] = {}
    for name in FAMILIES:
        for setting, rates in sorted(rows.items(), key=lambda row: getattr(row[0], name)):
            family = families.setdefault(f"{name} {getattr(setting, name)}", [])
            family.append((setting, rates))
    columns: list[Column] = [
        ("settings", lambda own: str(len(own))),
        ("false winner: strategy", _mean("strategy false", null=True)),
        ("arm", _mean("arm false", null=True)),
        ("default", _mean("documented_default false", null=True)),
        ("false equivalent: strategy", _mean("strategy unlike")),
        ("arm", _mean("arm unlike")),
        ("coverage: strategy", _lowest("strategy covered")),
        ("arm", _lowest("arm covered")),
        ("default", _lowest("documented_default covered")),
    ]
    heads = ("family", *(head for head, _ in columns))
    cells = [(name, *(show(own) for _, show in columns)) for name, own in families.items()]
    return _table(heads, cells)


def _power_table(rows: Mapping[Setting, Rates]) -> str:
    heads = (
        "subjects", "fold variance", "strategy, true 0.01", "true 0.02", "arm, true 0.01",
        "true 0.02", "equivalent (strategy), true 0",
    )  # fmt: skip
    cells = []
    for n in SUBJECTS:
        for fold in FOLDS:
            null, one, two = (rows.get(Setting(n, fold=fold, effect=e)) for e in (0.0, 0.01, 0.02))
            if null and one and two:
                shown = [
                    r[f"{claim} superior"] for claim in ("strategy", "arm") for r in (one, two)
                ]
                shown.append(null["strategy equivalent"])
                cells.append((str(n), f"{fold:g}", *(f"{100 * x:.0f}" for x in shown)))
    return _table(heads, cells)


def _failed_table(rows: Mapping[Setting, Rates]) -> str:
    heads = ("subjects", "found", "warned, of the right one", "found without it",
             "warned where none failed")  # fmt: skip
    cells = []
    for setting, r in rows.items():
        usual = rows.get(Setting(setting.n, effect=0.02))
        if setting.people == "failed" and setting.effect == 0.02 and usual:
            names = ("strategy superior", "named rightly", "superior without")
            shown = [*(r.get(name, 0.0) for name in names), usual.get("named", 0.0)]
            cells.append((str(setting.n), *(f"{100 * x:.0f}" for x in shown)))
    return _table(heads, cells)


def _base_table(rows: Mapping[Setting, Rates]) -> str:
    heads = ("subjects", "better by", "finetuning advised, in %", "the same where it scores best",
             "the pick's own Dice is too high by")  # fmt: skip
    cells = [
        (
            str(s.n),
            f"{s.base:g}",
            f"{100 * r['base is best, tune']:.1f}",
            f"{100 * r['base scores best, tune']:.1f}",
            f"{r['flattered']:.4f}",
        )
        for s, r in rows.items()
        if s.base is not None
    ]
    return _table(heads, cells)


def _needed_table(rows: Mapping[Setting, Rates]) -> str:
    heads = ("subjects now", "a number is given", "decided with the lower", "with the upper")
    cells = []
    for n in SUBJECTS:
        own = [r for s, r in rows.items() if s.n == n and s.effect > 0 and r.get("open")]
        if own:
            pairs = [
                ("open reachable", "open"),
                ("held low", "said low"),
                ("held high", "said high"),
            ]
            cells.append((str(n), *(_share(own, part, whole) for part, whole in pairs)))
    return _table(heads, cells)


def _share(own: Sequence[Rates], part: str, whole: str) -> str:
    total = sum(r.get(whole, 0.0) for r in own)
    return f"{100 * sum(r.get(part, 0.0) for r in own) / total:.0f}" if total else "-"


def _mean(name: str, null: bool = False) -> Callable[[Sequence[Row]], str]:
    def shown(own: Sequence[Row]) -> str:
        return f"{100 * mean(r[name] for s, r in own if not null or s.effect == 0):.1f}"

    return shown


def _lowest(name: str) -> Callable[[Sequence[Row]], str]:
    return lambda own: f"{100 * min(r[name] for _, r in own):.1f}"


def _table(heads: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    rule = "|".join(["---", *["--:"] * (len(heads) - 1)])
    rows = [f"| {' | '.join(row)} |" for row in (heads, *cells)]
    return "\n".join([rows[0], f"|{rule}|", *rows[1:]])
