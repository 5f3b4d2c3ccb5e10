"""The table of commands, and `hsf-tune` itself."""

import subprocess
import sys
from pkgutil import resolve_name

import pytest

from hsf_tune import __version__
from hsf_tune.cli.commands import COMMANDS, main
from hsf_tune.data.crop.cut import MASK_PATTERN, PRESETS
from hsf_tune.model.published import PUBLISHED


def ended(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    out, err = capsys.readouterr()
    return end.value.code, out, err


@pytest.mark.parametrize("words", [["--help"], []])
def test_help_lists_every_command_with_what_it_does(words, capsys):
    """Without words as with --help."""
    code, out, _ = ended(words, capsys)
    assert code == 0
    for name, command in COMMANDS.items():
        assert f"  {name} " in out
        assert command.about in out


def test_version_is_the_package_s(capsys):
    """One line for a bug report."""
    assert ended(["--version"], capsys) == (0, f"hsf-tune {__version__}\n", "")


def test_unknown_command_is_answered_with_the_nearest(capsys):
    """And with all there are."""
    code, _, err = ended(["tuen", "--space", "quick"], capsys)
    assert code == 2
    assert "no command tuen. Did you mean 'tune'?" in err
    assert "sync-mlflow" in err


def test_words_reach_the_command(capsys):
    """Here the names of the spaces that come with it."""
    code, out, _ = ended(["tune", "--list-spaces"], capsys)
    assert code == 0
    assert "quick" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_flow(name):
    """They are named by text, so that help imports none of them."""
    assert callable(resolve_name(COMMANDS[name].flow))


def test_help_says_what_the_flows_accept():
    """What is written in the help, as those modules are imported later."""
    flags = {a.dest: a for a in COMMANDS["crop"].parser("crop")._actions}
    assert list(flags["preset"].choices) == sorted(PRESETS)
    assert flags["mask"].default == MASK_PATTERN
    assert [*PUBLISHED] == ["hsf", *(f"bag_{i}" for i in range(5))]


def test_help_imports_nothing_that_takes_seconds():
    """Neither torch nor Ray, nor anything else that is not needed to say it."""
    code = (
        "import sys\n"
        "from hsf_tune.cli.commands import COMMANDS\n"
        "for name, command in COMMANDS.items(): command.parser(name).format_help()\n"
        "print(*{'torch', 'ray', 'mlflow', 'hydra', 'numpy', 'scipy'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
