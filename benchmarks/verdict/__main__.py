"""How often the verdict is right, on simulated searches.   python -m benchmarks.verdict

Measures what is missing in rates.csv, setting after setting (stop and start it as you like), says
whether each bar holds, and writes the tables of docs/statistics.md. After a change of the
method: --again. The first 40 settings only: --first 40.
"""

from __future__ import annotations

import argparse
import time

from benchmarks.verdict.bars import bars, broken
from benchmarks.verdict.rates import rates
from benchmarks.verdict.settings import grid, read_rates, write_rates
from benchmarks.verdict.tables import write_tables

SEARCHES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description="How often the verdict is right.")
    parser.add_argument("--again", action="store_true", help="measure everything anew")
    parser.add_argument("--first", type=int, default=None, help="settings of the grid")
    options = parser.parse_args()
    wanted = grid()[: options.first]
    known = {} if options.again else read_rates()
    rows = {setting: known[setting] for setting in wanted if setting in known}
    started = time.process_time()
    for i, setting in enumerate(wanted):
        if setting not in rows:
            rows[setting] = rates(setting, SEARCHES)
            write_rates({s: rows[s] for s in wanted if s in rows})
            print(
                f"{i + 1}/{len(wanted)} {time.process_time() - started:.0f} s", setting, flush=True
            )
    for bar in bars(rows):
        print(bar)
    if len(wanted) == len(grid()):
        write_tables(rows)
    if broken(rows):
        raise SystemExit("A bar does not hold.")


if __name__ == "__main__":
    main()
