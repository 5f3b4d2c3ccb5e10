"""The settings that the verdict is tried on, and the file with what came out."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.verdict.searches import Setting

RATES = Path(__file__).with_name("rates.csv")
SUBJECTS, SPREADS, FOLDS, EFFECTS = (
    (6, 10, 14, 20, 40),
    (0.0, 0.01, 0.03, 0.1),
    (0.0, 0.3, 1.0),
    (0.0, 0.01, 0.02),
)
Rates = Mapping[str, float]
Row = tuple[Setting, Rates]


def grid() -> list[Setting]:
    """All settings, the plain ones first."""
    return list(dict.fromkeys(_grid()))


def _grid() -> Iterator[Setting]:
    for n, spread, fold, effect in product(SUBJECTS, SPREADS, FOLDS, EFFECTS):
        yield Setting(n, spread=spread, fold=fold, effect=effect)
    for n, sd, spread, effect in product((6, 20, 40), (0.01, 0.02, 0.03), (0.01, 0.03), EFFECTS):
        yield Setting(n, sd=sd, spread=spread, effect=effect)
    some = (6, 10, 20, 40)
    for land, n, spread, fold, effect in product(
        ("slope", "uneven"), some, SPREADS[1:], (0.0, 1.0), (0.0, 0.02)
    ):
        yield Setting(n, spread=spread, fold=fold, effect=effect, landscape=land)
    for n, spread, effect in product(some, (0.01, 0.1), (0.0, 0.02)):
        yield Setting(n, spread=spread, effect=effect, people="heavy")
    for spread, fold, effect in product(SPREADS, FOLDS, EFFECTS):
        yield Setting(12, spread=spread, fold=fold, effect=effect, design="demo")
    for spread, fold, effect in product(SPREADS[1:], (0.3,), (0.0, 0.02)):
        yield Setting(12, spread=spread, fold=fold, effect=effect, design="demo", landscape="slope")
    for fold, effect in product(FOLDS, EFFECTS):
        yield Setting(20, fold=fold, effect=effect, design="5x2")
    for n, base in product(some, (0.0, 0.005, 0.01, 0.02)):
        yield Setting(n, base=base)
    for n, effect in product(some, EFFECTS):
        yield Setting(n, effect=effect, people="failed")


def read_rates(path: Path = RATES) -> dict[Setting, dict[str, float]]:
    """What was measured so far; {} where there is no file."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return dict(map(_parsed, csv.DictReader(file)))


def write_rates(rows: Mapping[Setting, Rates], path: Path = RATES) -> None:
    """All rows, replacing the file at once."""
    names = sorted({name for rates in rows.values() for name in rates})
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*(f.name for f in fields(Setting)), *names])
        for setting, rates in rows.items():
            own = ["" if v is None else v for v in asdict(setting).values()]
            writer.writerow([*own, *(f"{rates[n]:.5g}" if n in rates else "" for n in names)])
    part.replace(path)


def _parsed(row: dict[str, str]) -> tuple[Setting, dict[str, float]]:
    own: dict[str, Any] = {f.name: row.pop(f.name) for f in fields(Setting)}
    for name in ("sd", "spread", "fold", "effect"):
        own[name] = float(own[name])
    setting = Setting(
        **{**own, "n": int(own["n"]), "base": float(own["base"]) if own["base"] else None}
    )
    return setting, {name: float(value) for name, value in row.items() if value != ""}
