"""Records: nothing is lost, nothing half-written is believed."""

import csv
import errno
import json
import math
import os

import pytest
from filelock import FileLock

from hsf_tune.errors import HsfTuneError, RunError
from hsf_tune.files import write_text
from hsf_tune.records import (
    EpochEnded,
    Note,
    Records,
    RetriedAlone,
    Score,
    TrialEnded,
    TrialStarted,
    event_from_dict,
    event_to_dict,
    label_means,
    mean_dice,
    sole_writer,
    subject_means,
)
from hsf_tune.records.tables import write_tables

STARTED = TrialStarted(
    trial="t1",
    phase="explore",
    arm="encoder",
    strategy={"finetuning.depth": 2, "models.lr": 0.001},
    fold=1,
    seed=42,
    max_epochs=3,
    train=["d/a", "d/b"],
    validate=["d/c"],
    time=1.0,
)
SCORES = [
    Score("d/c", "c-left", "DG", "dice", 0.8),
    Score("d/c", "c-left", "CA1", "dice", 0.6),
    Score("d/c", "c-right", "DG", "dice", 0.5),
    Score("d/c", "c-right", "CA1", "dice", math.nan),
    Score("d/e", "e-left", "DG", "dice", 1.0),
    Score("d/e", "e-left", "CA1", "volume_mm3", 900.0),
]
ENDED = TrialEnded("t1", "finished", dice=0.8, epochs=3, scores=SCORES, time=9.0)


def epoch(number, dice):
    return EpochEnded("t1", number, {"val_dice": dice, "train_loss": 1.0}, time=2.0 + number)


def test_events_come_back_from_disk_as_they_were(tmp_path):
    events = [STARTED, epoch(0, 0.1), epoch(1, 0.2), RetriedAlone("t1", text="x", time=3.0)]
    Records(tmp_path).extend(events)
    again = Records(tmp_path)
    assert again.trials["t1"].started == STARTED
    assert again.trials["t1"].curve("val_dice") == ([0, 1], [0.1, 0.2])
    assert again.notes == [events[-1]]


def test_scores_that_are_not_a_number_are_valid_json_and_come_back():
    text = json.dumps(event_to_dict(ENDED), allow_nan=False)
    back = event_from_dict(json.loads(text))
    assert math.isnan(back.scores[3].value)
    assert back.scores[0] == SCORES[0]


def test_a_line_that_a_crash_cut_short_is_dropped_and_the_next_one_kept(tmp_path):
    records = Records(tmp_path)
    records.extend([STARTED, epoch(0, 0.1)])
    with records.path.open("a") as file:
        file.write('{"event": "epoch_ended", "tri')
    again = Records(tmp_path)
    again.append(epoch(1, 0.2))
    assert list(Records(tmp_path).trials["t1"].epochs) == [0, 1]


def test_an_epoch_reported_twice_counts_once_with_its_later_value(tmp_path):
    records = Records(tmp_path)
    records.extend([STARTED, epoch(0, 0.1), epoch(0, 0.3)])
    assert Records(tmp_path).trials["t1"].curve("val_dice") == ([0], [0.3])


def test_a_trial_that_goes_on_keeps_its_epochs(tmp_path):
    records = Records(tmp_path)
    records.extend([STARTED, epoch(0, 0.1), STARTED, epoch(1, 0.2)])
    assert list(records.trials["t1"].epochs) == [0, 1]


def test_a_full_disk_is_told_and_leaves_whole_lines(tmp_path, monkeypatch):
    records = Records(tmp_path)
    records.append(STARTED)
    before = records.path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HsfTuneError, match=r"No space left.*--resume"):
        records.append(epoch(0, 0.1))
    assert records.path.read_bytes() == before
    assert not records.trials["t1"].epochs


def test_means_are_by_subject_then_over_subjects():
    """c: left (.8 + .6)/2 = .7, right .5 alone -> .6; e: 1. Their mean: .8."""
    assert subject_means(SCORES) == pytest.approx({"d/c": 0.6, "d/e": 1.0})
    assert mean_dice(SCORES) == pytest.approx(0.8)
    assert label_means(SCORES) == pytest.approx({"DG": (0.65 + 1.0) / 2, "CA1": 0.6})


def test_no_scores_have_no_mean():
    assert math.isnan(mean_dice([]))


def test_tables_have_a_row_a_trial_and_a_row_a_score(tmp_path):
    records = Records(tmp_path)
    records.extend([STARTED, epoch(0, 0.1), ENDED])
    write_tables(records)
    trials = list(csv.DictReader((tmp_path / "trials.csv").open()))
    scores = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert [(t["trial"], t["status"], t["dice"]) for t in trials] == [("t1", "finished", "0.8")]
    assert len(scores) == len(SCORES)
    assert scores[3]["value"] == ""
    assert list(scores[0]) == [
        "phase", "trial", "arm", "fold", "seed", "subject", "case", "label", "metric", "value",
    ]  # fmt: skip


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def crash(*_):
        raise OSError("killed")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="killed"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_is_held_by_one_process_which_may_take_it_again(tmp_path):
    with sole_writer(tmp_path / "run"), sole_writer(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    other = FileLock(tmp_path / "run" / ".lock")
    with other, pytest.raises(HsfTuneError, match="is in use"), sole_writer(tmp_path / "run"):
        pass


def test_storage_that_cannot_lock_is_written_without_a_lock(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with sole_writer(tmp_path):
        Records(tmp_path).append(STARTED)
    assert Records(tmp_path).trials


def test_an_output_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(HsfTuneError, match="can't be written"),
        sole_writer(tmp_path / "file" / "run"),
    ):
        pass


LINE = json.dumps(event_to_dict(STARTED))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (LINE.replace('"t1"', '"../../home"'), r"'\.\./\.\./home' can't be the id of a trial"),
        (LINE.replace('"t1"', "17"), "trial holds 17"),
        (LINE[:40], "Expecting .* column"),
        ('{"event": "trial_exploded"}', "'trial_exploded' is none of trial_started"),
        ('{"event": "trial_ended", "trial": "t1"}', "missing 1 required positional argument"),
        ('{"event": "note", "about": "x", "data": [1]}', r"data holds \[1\]"),
        ('{"event": "trial_ended", "trial": "t1", "status": "failed", "scores": [[1]]}', "unpack"),
        ('{"event": "epoch_ended", "trial": "t1", "epoch": "0", "metrics": {}}', "epoch holds"),
        ("[1]", "the event None is none of"),
        ("\x00\x00", "Expecting value"),
        ("[" * 9999, "recursion"),
    ],
)
def test_a_line_in_the_middle_that_is_no_event_is_told_with_its_number(tmp_path, line, said):
    """Where a disk was damaged, a hand slipped, or somebody means harm."""
    path = tmp_path / "trials.jsonl"
    path.write_text(f"{LINE}\n{line}\n{LINE}\n")
    with pytest.raises(RunError, match=rf"trials\.jsonl, line 2, is no event of a run: .*{said}"):
        Records(tmp_path)


def test_records_that_are_a_link_out_of_the_run_are_not_written(tmp_path):
    """Appending would cut an unfinished line off somebody's file."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trials.jsonl").symlink_to(tmp_path / "other")
    with pytest.raises(RunError, match="leads out of that folder"):
        Records(tmp_path / "run")


def test_a_folder_that_cannot_be_made_where_nothing_locks_is_written_without_a_lock(
    tmp_path, monkeypatch
):
    """The file system refuses the folder's making in the words of one that can't lock."""

    def refuse(*_, **__):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(type(tmp_path), "mkdir", refuse)
    with sole_writer(tmp_path):
        Records(tmp_path)


def test_a_file_is_on_the_disk_before_it_takes_the_others_place(tmp_path, monkeypatch):
    """Else a power cut leaves an empty one under its name."""
    calls = []
    kept = {name: getattr(os, name) for name in ("fsync", "replace")}
    for name in kept:
        monkeypatch.setattr(
            os, name, lambda *given, name=name: (calls.append(name), kept[name](*given))
        )
    write_text(tmp_path / "a.txt", "text")
    assert calls == ["fsync", "replace"]


AS_WRITTEN = [
    ("proposed", {"arm": "a", "number": 1, "strategy": {"models.lr": 0.1}, "params": {"b": 2}}),
    ("exhausted", {"arm": "a"}),
    ("finalists", {"arm": "a", "finalists": [{"number": 1, "strategy": {}, "folds": 2}]}),
    ("stage", {}),
    ("retry_alone", {"trial": "explore-a-001-f1"}),
    ("confirmation_voided", {}),
    ("warning", {}),
    ("configuration", {"config": {"seed": 42}, "space": {"name": "s"}}),
    ("configuration", {"config": {"seed": 42}}),
    ("versions", {"python": "3.11.7", "text": "1.0"}),
    ("finished", {}),
    ("time_budget", {}),
    ("interrupted", {}),
]


@pytest.mark.parametrize(("about", "data"), AS_WRITTEN)
def test_a_note_is_read_and_written_in_the_form_of_the_first_release(about, data):
    """`about` tells the kind, `data` holds its own fields; nothing is lost or added."""
    line = {"event": "note", "about": about, "text": "words", "data": data, "time": 3.0}
    note = event_from_dict(line)
    assert type(note) is not Note
    assert event_to_dict(note) == line


def test_a_note_of_a_later_version_is_read_as_a_plain_one():
    """Its words are kept; what it is about says nothing to this version."""
    line = {"event": "note", "about": "weather", "text": "rain", "data": {"mm": 3}, "time": 3.0}
    assert event_from_dict(line) == Note(text="rain", time=3.0)


def test_events_of_records_lead_to_the_same_records(tmp_path):
    """What follows a run event by event sees what one who reads the file sees."""
    records = Records(tmp_path / "a")
    records.extend([STARTED, epoch(0, 0.1), RetriedAlone("t1"), STARTED, epoch(1, 0.2), ENDED])
    other = Records(tmp_path / "b")
    other.extend(records.events())
    assert (other.trials, other.notes) == (records.trials, records.notes)
