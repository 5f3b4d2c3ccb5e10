"""Ctrl-C and SIGTERM: the only place that handles signals.

A command runs `interruptible`: the first signal raises `Stopped`, and the command ends with 130
or 143. What has to come to a clean end of its own (a search, its report) runs `deferring`
inside: there the first signal is only noted. A second Ctrl-C raises KeyboardInterrupt in both;
SIGTERM, which a scheduler repeats, does nothing more.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
RENEW_S = 0.01
_set = signal.signal  # what `shielded` takes the place of


class Stopped(BaseException):
    """The user or the system asked for an end; what is on disk is whole.

    No KeyboardInterrupt, which Lightning would turn into an exit of its own.

    Attributes:
        exit_code: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Interrupt:
    """Whether an end was asked for, and by which signal.

    Args:
        raising: whether the first signal raises `Stopped`, or is only noted.
    """

    def __init__(self, *, raising: bool = False) -> None:
        self.signal: signal.Signals | None = None
        self.raising = raising

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM, 0 where nobody asked."""
        return 128 + self.signal if self.signal else 0

    def request(self, number: int, frame: FrameType | None = None) -> None:
        """Handle a signal."""
        if self.signal is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.signal = signal.Signals(number)
        if self.raising:
            raise Stopped(number)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Stopped` at the first signal."""
    with handled_by(Interrupt(raising=True)):
        yield


@contextmanager
def deferring() -> Iterator[Interrupt]:
    """Note the first signal, for what is inside to come to its own end."""
    interrupt = Interrupt()
    with handled_by(interrupt):
        yield interrupt


@contextmanager
def shielded(interrupt: Interrupt) -> Iterator[None]:
    """Keep both signals with `interrupt` while a library starts that installs its own handlers.

    What it asks of Python is refused. What its native code installs, without asking, is replaced
    again within hundredths of a second: it would end the process.
    """

    def refuse(number: int, handler: object) -> object:
        return signal.getsignal(number) if number in SIGNALS else _set(number, handler)  # type: ignore[arg-type]

    def renew(number: int, frame: FrameType | None) -> None:
        for signal_ in SIGNALS:
            _set(signal_, interrupt.request)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with handled_by(interrupt):
        signal.signal = refuse  # type: ignore[assignment]
        alarm = _set(signal.SIGALRM, renew)
        signal.setitimer(signal.ITIMER_REAL, RENEW_S, RENEW_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            _set(signal.SIGALRM, alarm)
            signal.signal = _set


@contextmanager
def handled_by(interrupt: Interrupt) -> Iterator[None]:
    """Send both signals to `interrupt`; only the main thread can receive any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: _set(number, interrupt.request) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            _set(number, handler)
