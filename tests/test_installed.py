"""Commands as they are printed: each works in the shell and folder that the user stands in."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hsf_tune import installed
from hsf_tune.cli.commands import COMMANDS
from hsf_tune.installed import shipped, typed, typed_again, typed_program

ROOT = Path(__file__).parents[1]


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An environment in `.venv` of the working directory, whose interpreter runs this."""
    programs = tmp_path / "study" / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "mlflow", "hsf-tune"):
        (programs / name).symlink_to(os.path.realpath(sys.executable))
    monkeypatch.chdir(tmp_path / "study")
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    return programs


@pytest.fixture
def active(environment, monkeypatch):
    """The same, activated."""
    monkeypatch.setenv("PATH", f"{environment}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone in the working directory, which is where `make` is called."""
    monkeypatch.setattr(installed, "_CLONE", tmp_path / "study")
    (tmp_path / "study" / "scripts").mkdir(parents=True, exist_ok=True)
    for name in ("tune.py", "scripts/sync_mlflow.py"):
        (tmp_path / "study" / name).write_text("")


def test_program_names_its_subcommands(active, monkeypatch):
    """Started as `hsf-tune`, whatever the folder; words are quoted for the shell."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/hsf-tune", "tune"])
    assert typed("tune", "--resume", "my run") == "hsf-tune tune --resume 'my run'"
    assert typed("sync-mlflow", "outputs/a") == "hsf-tune sync-mlflow outputs/a"


def test_script_names_scripts(active, clone, monkeypatch):
    """Started as `python tune.py` in a clone."""
    monkeypatch.setattr(sys, "argv", ["tune.py"])
    assert typed("tune", "--resume", "a") == "python tune.py --resume a"
    assert typed("sync-mlflow", "outputs/a") == "python scripts/sync_mlflow.py outputs/a"
    assert typed_again("tune.py --space 'my space'") == "python tune.py --space 'my space'"
    assert typed_program("mlflow", "ui") == "mlflow ui"


def test_environment_that_is_not_active_is_named_by_its_folder(environment, clone, monkeypatch):
    """As after `make demo`, although another python may be on the PATH."""
    monkeypatch.setattr(sys, "argv", ["tune.py"])
    assert typed("tune", "--resume", "a") == ".venv/bin/python tune.py --resume a"
    assert typed_program("mlflow", "ui") == ".venv/bin/mlflow ui"
    monkeypatch.setattr(sys, "argv", [str(environment / "hsf-tune")])
    assert typed("tune") == ".venv/bin/hsf-tune tune"


def test_elsewhere_a_clone_is_named_by_its_whole_path(active, clone, tmp_path, monkeypatch):
    """The command works in the folder that it was started in."""
    monkeypatch.setattr(sys, "argv", ["../study/tune.py"])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert typed("tune") == f"python {tmp_path}/study/tune.py"


def test_wheel_has_no_scripts(active, monkeypatch):
    """A `tune.py` that lies beside an installed package is somebody else's."""
    monkeypatch.setattr(installed, "_CLONE", None)
    monkeypatch.setattr(sys, "argv", ["somebody.py"])
    assert typed("tune", "--resume", "a") == "hsf-tune tune --resume a"


def test_python_that_only_has_a_version_in_its_name_is_called_by_it(tmp_path, clone, monkeypatch):
    """Where there is no `python`, as on Debian."""
    interpreter = tmp_path / "bin" / "python3"
    interpreter.parent.mkdir()
    interpreter.symlink_to(os.path.realpath(sys.executable))
    monkeypatch.setattr(sys, "executable", str(interpreter))
    monkeypatch.setattr(sys, "argv", ["tune.py"])
    monkeypatch.setenv("PATH", str(interpreter.parent))
    monkeypatch.chdir(tmp_path / "study")
    assert typed("tune") == "python3 tune.py"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_is_printed_starts(name):
    """Each is run with --help, in this environment as it is."""
    assert shipped("conf").is_dir()
    done = subprocess.run(
        [*shlex.split(typed(name)), "--help"], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {typed(name)}")
    assert shutil.which(shlex.split(typed(name))[0])
