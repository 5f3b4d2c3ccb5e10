"""What a user sees while a run goes on, in a terminal and in a log."""

from __future__ import annotations

import io
import math
import os
import pty
import subprocess
import sys
import threading
import time

import pytest
from rich.console import Console

from hsf_tune import progress as progress_module
from hsf_tune.progress import Expected, Progress
from hsf_tune.records import (
    EpochEnded,
    FinalistsNamed,
    Proposed,
    Records,
    TrialEnded,
    TrialStarted,
    Warned,
)


def started(trial, arm="encoder", phase="explore", fold=1, max_epochs=20):
    return TrialStarted(trial, phase, arm, {}, fold, 42, max_epochs, [], [])


def epochs(trial, first, last):
    return [EpochEnded(trial, e, {"val_dice": 0.5}) for e in range(first, last)]


def show(progress, *events):
    for event in events:
        progress(event)


def terminal(width=110):
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)


def drawn(progress):
    """The display's lines: header, column names, arms."""
    plain = Console(file=io.StringIO(), width=progress.console.width, color_system=None)
    plain.print(progress._table())
    return plain.file.getvalue().splitlines()


def rows(progress):
    """The header, and the words of each arm's row without its bar."""
    header, _names, *arms = drawn(progress)
    words = [[word for word in line.split() if not set(word) <= set("━╸╺")] for line in arms]
    return header, {arm: rest for arm, *rest in words}


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when the test says so."""
    now = [1000.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    return now


class TestTerminal:
    def test_each_arm_shows_its_trials_by_state_and_its_best_dice(self):
        """Running, pruned and failed trials are counted; the best is the last epochs' highest."""
        progress = Progress(
            {"encoder": Expected(4, 80), "head": Expected(2, 40)}, console=terminal()
        )
        show(
            progress,
            *(started(t) for t in "abcd"),
            *epochs("d", 0, 7),
            TrialEnded("a", "finished", dice=0.7),
            TrialEnded("b", "pruned", dice=0.9),
            TrialEnded("c", "failed", reason="the loss is nan"),
        )
        _, shown = rows(progress)
        assert shown["encoder"] == [
            "3/4", "1", "1", "1", "0.700", "explore,", "fold", "1:", "epoch", "7/20",
        ]  # fmt: skip
        assert shown["head"] == ["0/2", "-", "-", "-", "-"]

    def test_confirmation_does_not_change_the_best_of_the_exploration(self):
        """Other folds, other subjects: their Dice can't be compared in this table."""
        progress = Progress(console=terminal())
        show(
            progress,
            started("a"), TrialEnded("a", "finished", dice=0.7),
            started("b", phase="confirm"), TrialEnded("b", "finished", dice=0.95),
        )  # fmt: skip
        assert "0.700" in rows(progress)[1]["encoder"]

    def test_a_dice_that_is_not_known_is_never_the_best(self):
        """nan of one trial does not hide another's value."""
        progress = Progress(console=terminal())
        for trial, dice in (("a", math.nan), ("b", 0.6), ("c", None)):
            show(progress, started(trial), TrialEnded(trial, "finished", dice=dice))
        assert "0.600" in rows(progress)[1]["encoder"]

    def test_a_warning_and_a_failure_are_printed_above_the_table(self):
        """The reason of a failure is read once, not hidden in a count."""
        console = terminal()
        with Progress({"encoder": Expected(1, 20)}, console=console) as progress:
            show(
                progress,
                Warned(text="3 cases have no CA2"),
                started("a"),
                TrialEnded("a", "failed", reason="the loss is nan"),
            )
        text = console.file.getvalue()
        assert "3 cases have no CA2" in text
        assert "the loss is nan" in text

    def test_title_and_stage_stand_above_the_table(self):
        """The stage is that of the trial that began last."""
        progress = Progress(title="demo", console=terminal())
        show(progress, started("a"), started("b", phase="confirm"))
        assert rows(progress)[0].strip() == "demo · confirmation"

    @pytest.mark.parametrize("width", [75, 95, 200])
    def test_no_line_is_wider_than_the_terminal(self, width):
        """Eight trials at a time shorten the last column or drop it, never the others."""
        progress = Progress({"encoder": Expected(40, 800)}, console=terminal(width))
        show(progress, *(started(f"t{i}", fold=i % 3) for i in range(8)))
        lines = drawn(progress)
        assert len(lines) == 3
        assert max(map(len, lines)) <= width
        assert rows(progress)[1]["encoder"][:3] == ["0/40", "8", "-"]

    def test_events_and_drawing_may_come_from_different_threads(self):
        """A display that refreshes all the time while events pour in raises nothing."""
        progress = Progress({"encoder": Expected(200, 4000)}, console=terminal())
        faults, stop = [], threading.Event()

        def draw():
            while not stop.is_set():
                try:
                    rows(progress)
                except Exception as error:
                    faults.append(error)

        thread = threading.Thread(target=draw)
        thread.start()
        for i in range(200):
            show(
                progress,
                started(f"t{i}", arm=f"arm{i % 7}"),
                TrialEnded(f"t{i}", "finished", dice=0.5),
            )
        stop.set()
        thread.join()
        assert faults == []

    def test_a_real_terminal_shows_the_table_and_gets_its_cursor_back(self):
        """Through a pseudo-terminal, with the cursor hidden meanwhile and shown at the end."""
        code = """
from hsf_tune.progress import Expected, Progress
from hsf_tune.records import TrialEnded, TrialStarted
with Progress({"encoder": (2, 40)}, title="demo") as progress:
    progress(TrialStarted("a", "explore", "encoder", {}, 1, 42, 20, [], []))
    progress(TrialEnded("a", "finished", dice=0.8123))
"""
        parent, child = pty.openpty()
        env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
        process = subprocess.Popen([sys.executable, "-c", code], stdout=child, env=env)
        os.close(child)
        text = b""
        while True:
            try:
                piece = os.read(parent, 4096)
            except OSError:
                break
            if not piece:
                break
            text += piece
        os.close(parent)
        assert process.wait() == 0
        assert b"best Dice" in text
        assert b"0.812" in text
        assert text.rfind(b"\x1b[?25h") > text.rfind(b"\x1b[?25l") > -1


class TestLog:
    def test_elsewhere_each_ended_trial_is_one_plain_line(self):
        """No colours, no cursor movements, no line for epochs."""
        console = Console(file=io.StringIO(), width=40)
        with Progress({"encoder": Expected(2, 40)}, console=console) as progress:
            show(
                progress,
                Proposed("encoder", 0, {}, {}, text="explore-encoder-000"),
                FinalistsNamed("encoder", [], text="encoder is explored"),
                started("a"),
                *epochs("a", 0, 20),
                TrialEnded("a", "finished", dice=0.8123),
                started("b"),
                TrialEnded("b", "failed", reason="[models.lr] the loss is nan in epoch 3"),
            )
        lines = console.file.getvalue().splitlines()
        assert lines[0] == "encoder is explored"
        assert lines[1].startswith("[1/2]  a  finished  Dice 0.812")
        assert lines[2] == "[2/2]  b  failed  [models.lr] the loss is nan in epoch 3"
        assert len(lines) == 3


class TestTimeLeft:
    def test_it_follows_from_epochs_left_and_rate(self, clock):
        """10 of 40 epochs in 60 s leave 30 epochs, 180 s."""
        progress = Progress({"encoder": Expected(2, 40)}, console=terminal())
        show(progress, started("a"))
        assert progress.seconds_left() is None
        clock[0] += 60
        show(progress, *epochs("a", 0, 10))
        assert progress.seconds_left() == pytest.approx(180)

    def test_epochs_that_a_failed_trial_will_not_run_are_not_waited_for(self, clock):
        """Of 40 epochs, 20 belong to a trial that failed after 10."""
        progress = Progress({"encoder": Expected(2, 40)}, console=terminal())
        show(progress, started("a"))
        clock[0] += 60
        show(progress, *epochs("a", 0, 10), TrialEnded("a", "failed"))
        assert progress.seconds_left() == pytest.approx(120)

    def test_epochs_reported_twice_count_once(self, clock):
        """A trial that went on from its checkpoint repeats an epoch."""
        progress = Progress({"encoder": Expected(2, 40)}, console=terminal())
        show(progress, started("a"))
        clock[0] += 60
        show(progress, *epochs("a", 0, 10), started("a"), *epochs("a", 9, 10))
        assert progress.seconds_left() == pytest.approx(180)

    def test_a_resumed_run_counts_what_is_done_but_not_in_its_rate(self, clock, tmp_path):
        """30 of 40 epochs were done before; 5 more in 50 s leave 5, 50 s."""
        records = Records(tmp_path)
        records.extend([started("a"), *epochs("a", 0, 20), TrialEnded("a", "finished", dice=0.7)])
        records.extend([started("b"), *epochs("b", 0, 10)])
        progress = Progress({"encoder": Expected(2, 40)}, console=terminal())
        progress.resume(records)
        assert progress.seconds_left() is None
        assert "1/2" in rows(progress)[1]["encoder"]
        show(progress, started("b"))
        clock[0] += 50
        show(progress, *epochs("b", 10, 15))
        assert progress.seconds_left() == pytest.approx(50)


def test_an_event_in_a_terminal_costs_less_than_a_millisecond():
    """Drawing is the display's own thread's work."""
    with Progress({"encoder": Expected(1, 500)}, console=terminal()) as progress:
        progress(started("a", max_epochs=500))
        begin = time.perf_counter()
        show(progress, *epochs("a", 0, 500))
        assert (time.perf_counter() - begin) / 500 < 1e-3
