"""What stays on the disk once a search has ended."""

import shutil

import pytest

from hsf_tune.errors import RunError
from hsf_tune.records import FinalistsNamed, Records, TrialEnded, TrialStarted
from hsf_tune.search.retention import drop_checkpoints


def folder_with_trials(tmp_path):
    """Four trials with weights and a figure: a finalist's, another's, the default's, a running one."""
    records = Records(tmp_path)
    arms = {"a-001": "a", "a-002": "a", "default": "documented_default", "running": "a"}
    for number, (trial, arm) in enumerate(arms.items()):
        strategy = {"models.lr": number}
        records.append(TrialStarted(trial, "explore", arm, strategy, 1, 42, 20, [], []))
        if trial != "running":
            records.append(TrialEnded(trial, "finished", 0.7))
        place = tmp_path / "checkpoints" / trial
        place.mkdir(parents=True)
        for name in ("best.safetensors", "final.safetensors", "learning_curve.png"):
            (place / name).write_bytes(b"x" * 100)
    records.append(FinalistsNamed("a", [{"strategy": {"models.lr": 0}}]))
    return records


def left(tmp_path):
    return {p.parent.name for p in (tmp_path / "checkpoints").glob("*/*.safetensors")}


def test_weights_of_finalists_and_default_stay(tmp_path):
    """Those of the others go, their figures stay, and what still runs keeps all."""
    records = folder_with_trials(tmp_path)
    assert drop_checkpoints(records, "finalists") == 200
    assert left(tmp_path) == {"a-001", "default", "running"}
    assert (tmp_path / "checkpoints" / "a-002" / "learning_curve.png").exists()
    assert drop_checkpoints(records, "finalists") == 0


def test_all_weights_stay_where_asked(tmp_path):
    """search.keep_checkpoints=all."""
    assert drop_checkpoints(folder_with_trials(tmp_path), "all") == 0
    assert len(left(tmp_path)) == 4


def test_no_weights_outside_of_the_run_are_deleted(tmp_path):
    """Neither by a trial's id nor through a link, in a run that came from someone else."""
    run, theirs = tmp_path / "run", tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "mine.ckpt").write_bytes(b"x")
    records = folder_with_trials(run)
    moved = run / "checkpoints" / "a-002"
    shutil.rmtree(moved)
    moved.symlink_to(theirs)
    with pytest.raises(RunError, match="leads out of that folder"):
        drop_checkpoints(records, "finalists")
    text = records.path.read_text().replace('"a-002"', '"../../theirs"')
    records.path.write_text(text)
    with pytest.raises(RunError, match="can't be the id of a trial"):
        drop_checkpoints(Records(run), "finalists")
    assert (theirs / "mine.ckpt").exists()
