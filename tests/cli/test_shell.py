"""How a command that is told to stop comes to its end."""

from __future__ import annotations

import signal

import pytest

from hsf_tune.cli.shell import Stopped, run_command, stopping


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_stops_what_runs_and_names_the_exit_code(number, code):
    usual = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(Stopped) as stopped, stopping():
        signal.raise_signal(number)
    assert stopped.value.exit_code == code
    assert usual == {s: signal.getsignal(s) for s in usual}


@pytest.fixture
def usual_ctrl_c():
    """As in a terminal; a process that a script starts in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_while_the_end_is_written_stops_at_once(usual_ctrl_c):
    def command():
        with stopping():
            try:
                signal.raise_signal(signal.SIGINT)
            except Stopped:
                signal.raise_signal(signal.SIGINT)
        return 0

    with pytest.raises(SystemExit) as end:
        run_command(command)
    assert end.value.code == 130
