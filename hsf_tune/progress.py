"""Show a run in the terminal while it goes on: arms, trials, best Dice, time left.

An observer of events, told beforehand how many trials and epochs to expect. In a terminal
it keeps one table up to date below whatever is printed meanwhile; elsewhere (a file, a
scheduler's log) it prints one plain line for each trial that ended.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hsf_tune.records import STAGES, EpochEnded, Event, Note, Records, TrialEnded, TrialStarted
from hsf_tune.wording import duration

REFRESH_HZ = 4
ROOMY, BAR = 90, 16  # columns: of a terminal that has room for what runs now; of a bar
RANKED = ("explore", "finetune", "base")  # phases whose Dice is shown; the report has the others
ENDED = ("finished", "pruned", "failed")


class Expected(NamedTuple):
    """How much an arm has to do in all."""

    trials: int
    epochs: int


@dataclass
class _Trial:
    """What is shown of one trial."""

    arm: str
    phase: str
    fold: int
    max_epochs: int
    epochs: int = 0
    status: str = "running"
    dice: float | None = None

    @property
    def spent(self) -> int:
        """Epochs off the account: an ended trial will never run the rest."""
        return self.max_epochs if self.status in ENDED else self.epochs


class Progress:
    """The display, as a context manager and as an observer of events.

    Args:
        expected: arm -> trials and epochs of the whole run; `expect` changes it later.
        title: first words of the display, such as the run's name.
        console: where to; standard output by default.
    """

    def __init__(
        self,
        expected: Mapping[str, tuple[int, int]] | None = None,
        *,
        title: str = "",
        console: Console | None = None,
    ) -> None:
        self.title = title
        self.console = console or Console()
        self._expected = {arm: Expected(*parts) for arm, parts in (expected or {}).items()}
        self._trials: dict[str, _Trial] = {}
        self._stage = ""
        self._lock = threading.RLock()  # events and the display come from different threads
        self._began_s: float | None = None  # of the first trial of this process
        self._epochs_here = 0  # in this process, for the rate
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self._live = Live(
                console=self.console, get_renderable=self._table, refresh_per_second=REFRESH_HZ
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def expect(self, arm: str, trials: int, epochs: int) -> None:
        """Set what an arm has to do in all, once more is known."""
        with self._lock:
            self._expected[arm] = Expected(trials, epochs)

    def resume(self, records: Records) -> None:
        """Count what was done before; it does not enter the estimate of time left."""
        with self._lock:
            for event in records.events():
                self._apply(event)
            for trial in self._trials.values():
                if trial.status == "running":  # it waits to go on; shown so once it does
                    trial.status = "waiting"
            self._began_s, self._epochs_here = None, 0

    def __call__(self, event: Event) -> None:
        """Take an event into account; costs microseconds in a terminal."""
        with self._lock:
            self._apply(event)
        if isinstance(event, Note):
            if event.text and event.shown:
                self.say(event.text)
        elif isinstance(event, TrialEnded) and (event.status == "failed" or not self._live):
            self.say(self._line(event))

    def say(self, text: str) -> None:
        """Print a line (above the table), from any thread."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def seconds_left(self) -> float | None:
        """From the epochs left and the rate of this process; None before its first epoch."""
        with self._lock:
            if not self._epochs_here or self._began_s is None:
                return None
            rate = self._epochs_here / max(time.monotonic() - self._began_s, 1e-9)
            return self._epochs_left() / rate

    def _apply(self, event: Event) -> None:
        if isinstance(event, TrialStarted):
            self._began_s = self._began_s or time.monotonic()
            known = self._trials.get(event.trial)
            epochs = known.epochs if known else 0
            self._stage = STAGES.get(event.phase, event.phase)
            self._trials[event.trial] = _Trial(
                event.arm, event.phase, event.fold, event.max_epochs, epochs
            )
        elif not isinstance(event, Note) and (trial := self._trials.get(event.trial)):
            if isinstance(event, EpochEnded):
                self._epochs_here += max(0, event.epoch + 1 - trial.epochs)
                trial.epochs = max(trial.epochs, event.epoch + 1)
            else:
                trial.status, trial.dice = event.status, _known(event.dice)

    def _epochs_left(self) -> int:
        spent = dict.fromkeys(self._arms(), 0)
        for trial in self._trials.values():
            spent[trial.arm] += trial.spent
        return sum(max(0, e.epochs - spent[arm]) for arm, e in self._expected.items())

    def _arms(self) -> list[str]:
        return list(dict.fromkeys([*self._expected, *(t.arm for t in self._trials.values())]))

    # What is shown

    def _table(self) -> Group:
        with self._lock:
            roomy = self.console.width >= ROOMY
            table = Table(box=None, padding=(0, 1), pad_edge=False, expand=roomy)
            table.add_column("arm", no_wrap=True)
            table.add_column("", width=BAR)
            for name in ("trials", "running", "pruned", "failed", "best Dice"):
                table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
            if roomy:
                table.add_column("now", no_wrap=True, overflow="ellipsis", ratio=1)
            leader = self._leader()
            for arm in self._arms():
                trials = [t for t in self._trials.values() if t.arm == arm]
                row = self._row(arm, trials, bold=arm == leader)
                table.add_row(*row[: len(table.columns)])
            return Group(self._header(), table)

    def _header(self) -> Text:
        words = [word for word in (self.title, self._stage, self._time_left()) if word]
        return Text(" · ".join(words), style="bold", no_wrap=True, overflow="ellipsis")

    def _row(self, arm: str, trials: list[_Trial], *, bold: bool) -> list[Text | ProgressBar]:
        ended = [t for t in trials if t.status in ENDED]
        expected = self._expected.get(arm, Expected(len(trials), sum(t.max_epochs for t in trials)))
        whole = max(expected.epochs, 1)
        done = sum(t.spent for t in trials) if expected.epochs else int(bool(ended))
        running = [t for t in trials if t.status == "running"]
        best = _best(trials)
        return [
            Text(arm, style="bold" if bold else ""),
            ProgressBar(total=whole, completed=min(done, whole), width=BAR),
            Text(f"{len(ended)}/{max(expected.trials, len(trials))}"),
            _count(len(running)),
            _count(sum(t.status == "pruned" for t in ended)),
            _count(sum(t.status == "failed" for t in ended), style="bold red"),
            Text("-", style="dim") if best is None else Text(f"{best:.3f}", "bold" if bold else ""),
            Text(_now(running)),
        ]

    def _leader(self) -> str | None:
        best = {
            arm: _best([t for t in self._trials.values() if t.arm == arm]) for arm in self._arms()
        }
        known = {arm: value for arm, value in best.items() if value is not None}
        return max(known, key=lambda arm: known[arm]) if known else None

    def _line(self, event: TrialEnded) -> str:
        """One trial that ended, for a log."""
        ended = sum(t.status in ENDED for t in self._trials.values())
        all_of_them = max(ended, sum(e.trials for e in self._expected.values()))
        dice = event.reason or "" if _known(event.dice) is None else f"Dice {event.dice:.3f}"
        words = [f"[{ended}/{all_of_them}]", event.trial, event.status, dice, self._time_left()]
        return "  ".join(word for word in words if word)

    def _time_left(self) -> str:
        seconds = self.seconds_left()
        return "" if seconds is None or not self._epochs_left() else f"{duration(seconds)} left"


def _known(dice: float | None) -> float | None:
    """None for nan, which would win or lose every comparison."""
    return None if dice is None or math.isnan(dice) else dice


def _best(trials: Iterable[_Trial]) -> float | None:
    ranked = [t.dice for t in trials if t.phase in RANKED and t.status == "finished"]
    return max((dice for dice in ranked if dice is not None), default=None)


def _now(running: list[_Trial]) -> str:
    """'explore, fold 1: epoch 7/20, 3/20' for the trials that run."""
    places: dict[str, list[str]] = {}
    for trial in running:
        place = f"{trial.phase}, fold {trial.fold}"
        places.setdefault(place, []).append(f"{trial.epochs}/{trial.max_epochs}")
    return "; ".join(f"{place}: epoch {', '.join(epochs)}" for place, epochs in places.items())


def _count(number: int, style: str = "") -> Text:
    return Text(str(number), style=style) if number else Text("-", style="dim")
