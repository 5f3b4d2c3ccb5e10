"""How a process that is told to stop comes to its end."""

from __future__ import annotations

import signal

import pytest

from hsf_tune.cli.shell import run_command
from hsf_tune.interrupt import SIGNALS, Interrupt, Stopped, deferring, interruptible, shielded


@pytest.fixture(autouse=True)
def usual_ctrl_c():
    """As in a terminal; a process that a script starts in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize(("number", "code"), CODES)
def test_the_first_signal_stops_what_runs_and_names_the_exit_code(number, code):
    usual = {s: signal.getsignal(s) for s in SIGNALS}
    with pytest.raises(Stopped) as stopped, interruptible():
        signal.raise_signal(number)
    assert stopped.value.exit_code == code
    assert usual == {s: signal.getsignal(s) for s in usual}


def test_a_second_ctrl_c_while_the_end_is_written_stops_at_once():
    def command():
        with interruptible():
            try:
                signal.raise_signal(signal.SIGINT)
            except Stopped:
                signal.raise_signal(signal.SIGINT)
        return 0

    with pytest.raises(SystemExit) as end:
        run_command(command)
    assert end.value.code == 130


@pytest.mark.parametrize(("number", "code"), CODES)
def test_every_command_says_that_it_was_stopped(number, code, capsys):
    """130 or 143 and a sentence, not a bare death by the signal."""

    def command():
        signal.raise_signal(number)
        return 0

    with pytest.raises(SystemExit) as end:
        run_command(command)
    assert end.value.code == code
    assert "Stopped (" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_deferred_signal_is_noted_and_the_work_goes_on(number, code):
    """A scheduler repeats SIGTERM, which changes nothing."""
    with interruptible(), deferring() as interrupt:
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.exit_code == code


def test_a_second_ctrl_c_ends_deferred_work_at_once():
    with deferring():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_library_that_installs_its_own_handler_gets_no_signal():
    """As Ray does while it starts; other signals it may handle."""
    interrupt = Interrupt()
    before = signal.getsignal(signal.SIGUSR2)
    with shielded(interrupt):
        signal.signal(signal.SIGTERM, lambda number, frame: 1 / 0)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN
    signal.signal(signal.SIGUSR2, before)
    assert interrupt.exit_code == 143
