"""What every command does with odd words, odd names and unusable places."""

from __future__ import annotations

import os

import pytest
from rich.table import Table

from hsf_tune.cli.commands import COMMANDS, run
from hsf_tune.cli.shell import Screen, run_command
from hsf_tune.errors import DataError


def ended(command, *words):
    with pytest.raises(SystemExit) as end:
        run(command, words)
    return end.value.code


NAMES = ["[/b]", "[bold red]x[/]", "[link=http://x]y[/link]", ":smile:", "a[b"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_as_it_is_written(name, capsys):
    """Brackets in a subject's or folder's name are no markup, in a line, a table or an error."""
    screen = Screen()
    table = Table("subject")
    table.add_row(name)
    screen.print(name)
    screen.print(table)
    screen.say(name, "Note")

    def command():
        raise DataError(name)

    with pytest.raises(SystemExit) as end:
        run_command(command)
    assert end.value.code == 1
    out, err = capsys.readouterr()
    assert out.count(name) == 3
    assert err == f"Error: {name}\n"


CODES = ["\x1b[2J", "\x1b]0;t\x07", "\x9b31m", "\r", "\x08", "\u202e", "\udcff"]


@pytest.mark.parametrize("code", CODES)
def test_a_name_can_not_steer_the_terminal(code, capsys):
    """Control codes, directions of writing and bytes that are no text become visible."""
    table = Table("subject")
    table.add_row(f"a{code}b")
    screen = Screen()
    screen.print(f"a{code}b")
    screen.print(table)
    screen.say(f"a{code}b", "Note")
    out = capsys.readouterr().out
    assert code not in out
    assert "\x1b" not in out
    assert "b" in out


def test_a_password_is_never_shown(capsys):
    """Wherever the address was."""
    Screen().print("python tune.py tracking.uri=http://ann:s3cret@host:5000")
    assert capsys.readouterr().out == "python tune.py tracking.uri=http://host:5000\n"


@pytest.mark.parametrize(
    "words",
    [
        ("--resume", ""), ("--name", ""), ("--space", ""), ("--address", ""), ("--output", ""),
        ("--time-budget", ""),
    ],
)  # fmt: skip
def test_an_empty_flag_does_not_start_the_demo(words, capsys, tmp_path, monkeypatch):
    """As from a variable that is not set; nothing is made."""
    monkeypatch.chdir(tmp_path)
    assert ended("tune", *words) == 1
    assert f"{words[0]} is empty" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_written_by_every_command(command, capsys):
    """Before anything heavy is imported by it."""
    assert ended(command, "--help") == 0
    assert "usage:" in capsys.readouterr().out


def test_a_name_of_300_characters_is_refused_in_a_sentence(capsys, tmp_path, monkeypatch):
    """As a run's name, as a folder, as a file."""
    monkeypatch.chdir(tmp_path)
    long = "x" * 300
    assert ended("tune", "--space", "quick", "--name", long, "--dry-run") == 1
    assert "name is 'xxx" in capsys.readouterr().err
    assert ended("tune", "--space", f"{long}.yaml") == 1
    assert ended("tune", "--resume", long) == 1
    assert ended("finetune", f"strategy={long}") == 1
    assert ended("check", f"datasets=/{long}.yaml") == 1
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.skipif(not os.path.isdir("/sys/kernel"), reason="no folder that nobody can write in")
@pytest.mark.parametrize("kind", ["output", "cwd", "home"])
def test_a_place_that_can_not_be_written_is_named(kind, capsys, tmp_path, monkeypatch):
    """/sys refuses new files even to the superuser."""
    monkeypatch.chdir("/sys/kernel" if kind == "cwd" else tmp_path)
    monkeypatch.delenv("HSF_TUNE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/sys/kernel/cache" if kind == "home" else str(tmp_path))
    words = ["--output", "/sys/kernel/outputs"] if kind == "output" else []
    assert ended("check", *words) == 1 if kind != "home" else True
    if kind == "home":
        assert ended("finetune", "tracking.enabled=false") == 1
    said = capsys.readouterr().err
    assert "Error: " in said
    assert "/sys/kernel" in said or "demo_data" in said
