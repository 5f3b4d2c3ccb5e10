"""Find and read search space files; what their keys mean is decided in `space.py`.

A name is looked up in `search_spaces/` of the working directory and among those
that come with the program; anything with a slash or a YAML suffix is a path.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hsf_tune.errors import ConfigError, did_you_mean
from hsf_tune.installed import shipped
from hsf_tune.yaml_file import load_yaml

SHIPPED = shipped("search_spaces")


def find_space(name_or_path: str) -> Path:
    """The file of a space.

    Raises:
        ConfigError: there is none; the message names those that exist.
    """
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            raise ConfigError(f"--space {name_or_path}: no such file.")
        return path
    found = _all_spaces()
    if name_or_path not in found:
        raise ConfigError(
            f"--space {name_or_path}: no space of that name in"
            f" {' or '.join(str(f) for f in _folders())}.{did_you_mean(name_or_path, found)}"
            " A file of your own is given by its path."
        )
    return found[name_or_path]


def list_spaces() -> dict[str, str]:
    """Name of each space -> the first comment of its file."""
    return {name: _first_comment(path) for name, path in sorted(_all_spaces().items())}


def read_space(path: Path) -> dict[str, Any]:
    """The plain content of a space file, numbers read as YAML 1.2 does (1e-3 is a float).

    Raises:
        ConfigError: not YAML, no mapping, or a key written twice.
    """
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds {type(content).__name__}, expected keys with `arms:`.")
    return content


def constants_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a space that all its arms share and none of them varies.

    Args:
        content: of its file, see `read_space`.
    """
    return {
        key: value
        for key, value in content.items()
        if key not in ("name", "arms", "start") and not isinstance(value, dict)
    }


def _folders() -> list[Path]:
    local = Path("search_spaces")
    return [SHIPPED] if local.resolve() == SHIPPED or not local.is_dir() else [local, SHIPPED]


def _all_spaces() -> dict[str, Path]:
    return {p.stem: p for folder in reversed(_folders()) for p in sorted(folder.glob("*.yaml"))}


def _first_comment(path: Path) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            return line.lstrip("# ").rstrip()
        if line.strip():
            break
    return ""
