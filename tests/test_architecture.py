"""The pages for developers and users name only paths and commands that exist."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from hsf_tune.cli.commands import COMMANDS

ROOT = Path(__file__).parents[1]
MAP = ROOT / "docs/architecture.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SPAN = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"[\w.-]+(/[\w.-]*)+|[\w-]+\.(py|md|toml|html)")
COMMAND = re.compile(
    r"(?:\bpython (?P<module>-m )?(?P<target>[\w./-]+)|\bhsf-tune (?P<ours>[a-z][a-z-]*)|\bmake (?P<goal>[a-z-]+))"
)
PRINTED = {"report.html", "report.json"}  # files of a run


def exists(path):
    """In the repository or the package; a module is named with or without `.py`."""
    folders = ROOT, ROOT / "hsf_tune"
    return any((folder / name).exists() for folder in folders for name in (path, f"{path}.py"))


def code(page):
    """What a page shows as code: spans, and the lines of indented or fenced blocks."""
    text = page.read_text()
    blocks = re.findall(r"^(?:    |\t)(.+)$", text, re.MULTILINE)
    return [*SPAN.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL)), *blocks]


def is_command(match):
    """Whether there is what a command line begins with."""
    if match["ours"]:
        return match["ours"] in COMMANDS
    if match["goal"]:
        return re.search(rf"^{match['goal']}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    if match["module"]:
        top = match["target"].split(".")[0]
        return top == "pytest" or importlib.util.find_spec(match["target"]) is not None
    return (ROOT / match["target"]).is_file()


def test_every_path_on_the_map_exists():
    """Whoever follows the map opens a file that is there."""
    spans = [span for span in code(MAP) if PATH.fullmatch(span) and span not in PRINTED]
    named = [span for span in spans if not span.startswith("outputs/")]
    assert len(named) > 60
    assert [path for path in named if not exists(path)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_on_a_page_exists(page):
    """A command that is copied from a page starts a program of ours."""
    matches = [match for piece in code(page) for match in COMMAND.finditer(piece)]
    assert [match[0] for match in matches if not is_command(match)] == []


def test_every_floor_is_on_the_map():
    """A new part of the package is explained where the others are."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    floors = " | ".join(contracts["contracts"][0]["layers"]).split(" | ")
    spans = {span.removesuffix(".py") for span in code(MAP)}
    assert [floor for floor in floors if floor.removeprefix("hsf_tune.") not in spans] == []


def test_commits_are_checked_with_the_tools_of_the_environment():
    """No hook downloads a tool of another version than the tests use."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    tools = {hook["entry"].split()[0] for hook in hooks[0]["hooks"]}
    assert tools == {"ruff", "mypy", "lint-imports"}
    assert {hook["language"] for hook in hooks[0]["hooks"]} == {"system"}
