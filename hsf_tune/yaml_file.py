"""Read a YAML file that nobody vouches for, or say what is wrong with it and on which line.

A few hundred bytes may stand for gigabytes (aliases of aliases), refer to themselves, or be
nested deeper than Python counts; two equal keys are read as the last one without a word.
Such files are refused before anything is built from them. What the keys mean is for the
callers.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from hsf_tune.errors import ConfigError

LARGEST_BYTES = 2**20
MOST_NODES = 100_000  # once aliases are filled in


def load_yaml(path: Path) -> Any:
    """The plain content of a YAML file; nothing in it is filled in.

    Numbers are those of YAML 1.2: 1e-3 is a float.

    Raises:
        ConfigError: as `sound_yaml`.
    """
    try:
        return yaml.load(sound_yaml(path), Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none, a bad tag
        raise ConfigError(f"{path} can't be read as YAML: {_first_line(error)}") from None


def read_yaml(path: Path, expected: str) -> dict[str, Any]:
    """The keys of a YAML file.

    Args:
        expected: what should be there, for the error.

    Raises:
        ConfigError: as `sound_yaml`, and where it holds no keys.
    """
    content = load_yaml(path)
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{path} holds no keys. Expected {expected}.")
    return content


def sound_yaml(path: Path) -> str:
    """The text of a YAML file of sensible size, whatever it is read with afterwards.

    Raises:
        ConfigError: it can't be read, is no YAML, or is one of those that the module's
            docstring names.
    """
    try:
        if not path.is_file():
            raise ConfigError(f"{path} is no file. Expected a YAML file.")
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
        text = content.decode("utf-8")
        if len(content) > LARGEST_BYTES:
            raise ConfigError(f"{path} is larger than {LARGEST_BYTES:,} bytes. Expected settings.")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None and _count(path, root, {}, set()) > MOST_NODES:
            raise ConfigError(
                f"{path} stands for more than {MOST_NODES:,} values, as its aliases (*name) refer"
                " to one another. Write out what is meant."
            )
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_where_it_breaks(path, error)) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text. Save it as UTF-8.") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply. Expected settings.") from None
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} can't be read as YAML: {_first_line(error)}") from None
    return text


def _count(path: Path, node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """The values that a node stands for, each alias counted in full."""
    if id(node) in above:
        line = node.start_mark.line + 1
        raise ConfigError(f"{path}, line {line}: it refers to itself. Write out what is meant.")
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        parts: list[yaml.Node] = list(node.value)
        if isinstance(node, yaml.MappingNode):
            _refuse_repeated_keys(path, node)
            parts = [part for pair in node.value for part in pair]
        inside = above | {id(node)}
        known[id(node)] = 1 + sum(_count(path, part, known, inside) for part in parts)
    return known[id(node)]


def _refuse_repeated_keys(path: Path, node: yaml.MappingNode) -> None:
    first: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode) and first.setdefault(key.value, line) != line:
            raise ConfigError(
                f"{path}, line {line}: the key {key.value} is here a second time (first on line"
                f" {first[key.value]}). Remove one of the two."
            )


def _where_it_breaks(path: Path, error: yaml.MarkedYAMLError) -> str:
    """File and line; also where an unclosed quote or bracket was opened."""
    mark, opened = error.problem_mark, error.context_mark
    line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    since = ""
    if mark and opened and opened.line != mark.line:
        since = f" {error.context} that begins on line {opened.line + 1}"
    return f"{path}{line}: not valid YAML ({error.problem}{since}). Mend that line."


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's numbers and booleans."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, regex) for tag, regex in pairs if not tag.endswith((":float", ":bool"))]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?$|^[-+]?[0-9]+[eE][-+]?[0-9]+$"
        r"|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
