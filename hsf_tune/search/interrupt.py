"""Turn Ctrl-C and SIGTERM into a clean end of the search.

The first signal asks the search to stop: what is done is kept, running trials have
their last epoch on disk. A second Ctrl-C raises KeyboardInterrupt at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Interrupt:
    """Whether the search was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM, 0 where nobody asked."""
        return EXIT_CODES[self.signal] if self.signal else 0

    def request(self, number: int, frame: FrameType | None = None) -> None:
        """Handle a signal."""
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or signal.Signals(number)


@contextmanager
def interrupts(interrupt: Interrupt) -> Iterator[None]:
    """Send both signals to `interrupt`; only the main thread can receive any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interrupt.request) for number in EXIT_CODES}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
