"""How the program came here and was started: where its own files are, how its commands are typed.

In a clone conf/ and search_spaces/ lie beside the package, and the commands are `python tune.py`
and `python scripts/check.py`. Installed from a wheel they lie in the package, and there is
`hsf-tune`. Everything that names a command to the user asks here.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

PROGRAM = "hsf-tune"
_PACKAGE = Path(__file__).resolve().parent
_CLONE = None if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent


def shipped(folder: str) -> Path:
    """A folder of YAML files that comes with the program: `conf` or `search_spaces`."""
    return (_CLONE or _PACKAGE) / folder


def typed(command: str, *words: str) -> str:
    """A command of ours as it is typed in the shell and folder that the user stands in.

    Args:
        command: `tune`, `check`, `sync-mlflow`, ...; see `cli/commands.py`.
        words: what follows it, unquoted.
    """
    script = None if Path(sys.argv[0]).stem == PROGRAM else _script(command)
    start = [_program(PROGRAM), command] if script is None else [_python(), _here(script)]
    return shlex.join([*start, *words])


def typed_again(line: str) -> str:
    """A command that was written down as `tune.py WORDS`, as it is typed now."""
    script, _, words = line.partition(" ")
    return f"{typed(Path(script).stem)} {words}".rstrip()


def typed_program(name: str, *words: str) -> str:
    """The same for a program that was installed along with ours, such as `mlflow`."""
    return shlex.join([_program(name), *words])


def _script(command: str) -> Path | None:
    """The file of a clone that is the command."""
    file = f"{command.replace('-', '_')}.py"
    paths = [_CLONE / file, _CLONE / "scripts" / file] if _CLONE else []
    return next((path for path in paths if path.is_file()), None)


def _python() -> str:
    """The running interpreter's shortest name that the shell understands."""
    for name in ("python", Path(sys.executable).name):
        found = shutil.which(name)
        if found and _same(found, sys.executable):
            return name
    return _here(Path(sys.executable))


def _program(name: str) -> str:
    """Its name where the shell finds the one of this environment, else its path."""
    own, found = Path(sys.executable).parent / name, shutil.which(name)
    return name if not own.exists() or (found and _same(found, own)) else _here(own)


def _same(found: str, own: str | Path) -> bool:
    """By folder, too: the interpreters of all environments may be links to one file."""
    return os.path.samefile(Path(found).parent, Path(own).parent) and os.path.samefile(found, own)


def _here(path: Path) -> str:
    """Relative where it lies below the working directory."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
