"""A run's folder: its names stand once, and nothing leads out of it."""

import ast
import os
import re
from pathlib import Path

import pytest

from hsf_tune.errors import RunError
from hsf_tune.run_folder import RunFolder, TrialFolder

ROOT = Path(__file__).parents[1]
FILES = {
    value.name
    for folder in (RunFolder, TrialFolder)
    for value in vars(folder).values()
    if hasattr(value, "__get__") and hasattr(value, "name")
} - {".lock"}  # which others lock with, too
DOTTED = "|".join(re.escape(name) for name in (*FILES, "contact-sheet-") if not name.isalpha())
ALONE = re.compile(rf"(?<![\w-])({DOTTED})")


def names_in(path):
    """Names of a run's files in a module's texts that are no prose, and those joined to a path."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    sides = [(n.left, n.right) for n in nodes if isinstance(n, ast.BinOp)]
    joined = {id(side) for pair in sides for side in pair}
    for node in nodes:
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and " " not in text:
            bare = id(node) in joined and text in {*FILES, "checkpoints", "export"}
            if bare or ALONE.search(text):
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {text}"


def test_no_other_module_names_a_file_of_a_run():
    """A name with a suffix stands nowhere else; a bare word is joined to no path."""
    modules = [p for place in ("hsf_tune", "scripts") for p in (ROOT / place).rglob("*.py")]
    others = [path for path in modules if path.name != "run_folder.py"]
    assert not [name for path in others for name in names_in(path)]
    assert list(names_in(ROOT / "hsf_tune" / "run_folder.py"))


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "outputs" / "run")
    folder.records.parent.mkdir(parents=True)
    folder.records.write_text("")
    (tmp_path / "key").write_text("secret")
    return folder


@pytest.mark.parametrize(
    "path", ["../../key", "/etc/passwd", "checkpoints/../../../key", "link", "linked/key", "a\0b"]
)
def test_a_path_that_leads_out_of_the_run_is_refused(run, tmp_path, path):
    """By dots, from the root, through links to a file and to a folder, or as no path at all."""
    (run.path / "link").symlink_to(tmp_path / "key")
    (run.path / "linked").symlink_to(tmp_path)
    with pytest.raises(RunError, match=r"leads out of that folder.*neither read, changed nor"):
        run.inside(path)


def test_a_path_inside_of_the_run_is_taken_as_it_is(run, tmp_path):
    """Also where all runs lie behind a link."""
    (tmp_path / "short").symlink_to(tmp_path / "outputs")
    behind = RunFolder(tmp_path / "short" / "run")
    path = "checkpoints/t/../t/best.safetensors"
    assert behind.inside(path) == behind.path / path
    assert run.trial("explore-a_b-001-f1").best.name == "best.safetensors"


@pytest.mark.parametrize("trial", ["..", "../..", "/root", "a/b", "", "a.b", "a\n", "ä"])
def test_what_is_no_name_of_a_trial_has_no_folder(run, trial):
    """It would be a path."""
    with pytest.raises(RunError, match="can't be the id of a trial"):
        run.trial(trial)


def test_what_a_run_without_trials_left_is_removed_and_nothing_else(run):
    """Only marked trials, of them only our own files; notes of the user stay with their folder."""
    for trial in ("explore-a-001-f1", "explore-a-002-f1"):
        files = run.trial(trial)
        files.path.mkdir(parents=True)
        files.mark.write_text("{}")
        files.last.write_bytes(b"x")
    (run.trial("explore-a-002-f1").path / "notes.txt").write_text("mine")
    own = run.path / "checkpoints" / "mine"
    own.mkdir()
    (own / "best.safetensors").write_bytes(b"mine")
    run.claim()
    assert run.is_run
    run.records.unlink()
    left = sorted(str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.is_file())
    assert left == ["checkpoints/explore-a-002-f1/notes.txt", "checkpoints/mine/best.safetensors"]
    assert not run.trial("explore-a-001-f1").path.exists()


@pytest.mark.parametrize("name", ["config.yaml", "optuna.db", "figures", "checkpoints"])
def test_a_folder_that_holds_no_run_but_files_of_those_names_is_left_as_it_is(run, name):
    """A name that is taken by someone's own folder: the run would replace what is in it."""
    run.records.unlink()
    (run.path / name).write_text("mine")
    with pytest.raises(RunError, match=f"is no run, but a run would replace .*{name}; nothing was"):
        run.claim()
    assert [path.name for path in run.path.iterdir()] == [name]


def test_a_file_of_the_run_that_lies_elsewhere_is_not_taken_from_anybody(run, tmp_path):
    """As of `search.state_dir`."""
    run.records.unlink()
    (tmp_path / "optuna.db").write_text("mine")
    with pytest.raises(RunError, match=r"would replace .*optuna\.db"):
        run.claim(tmp_path / "optuna.db")


@pytest.mark.parametrize("content", ["", "[1]", "a: [", "just text", "\x00", "{}", "[" * 5000])
@pytest.mark.parametrize("file", ["config", "dataset", "space", "summary"])
def test_a_file_that_holds_something_else_is_told_by_name(run, file, content):
    """Empty, cut, of another form: never a traceback of a parser."""
    path = getattr(run, file)
    path.write_text(content)
    with pytest.raises(RunError, match=path.name):
        getattr(run, f"read_{file}")()


def test_a_file_that_is_no_text_is_told_by_name(run):
    """As a picture under the configuration's name."""
    run.config.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(RunError, match=r"config\.yaml is no text"):
        run.read_config()


def test_a_full_disk_is_told_with_how_to_go_on(run):
    """In place of a traceback, while tables and report are written."""
    full = OSError(28, "No space left on device", str(run.report))
    with pytest.raises(RunError, match=r"report\.html.*No space left.*--resume run"), run.writing():
        raise full


def test_what_is_shown_of_a_run_is_its_own(run, tmp_path):
    """A report that is a link to somebody's key is not sent to a tracking server."""
    run.config.write_text("a: 1")
    assert [path.name for path in run.to_show] == ["config.yaml"]
    os.symlink(tmp_path / "key", run.report)
    with pytest.raises(RunError, match=r"report\.html"):
        _ = run.to_show
