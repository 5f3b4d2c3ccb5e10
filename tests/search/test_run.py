"""Searches on a real Ray instance, with a trainer that learns nothing."""

import json
import shutil
import sqlite3
import threading
from collections import Counter

import optuna
import pytest
import small_search
from filelock import FileLock

from hsf_tune.errors import SearchError
from hsf_tune.records import (
    ConfirmationVoided,
    EpochEnded,
    Proposed,
    Records,
    RetriedAlone,
    TrialEnded,
    TrialStarted,
    Warned,
)
from hsf_tune.search.coordinator import Coordinator
from hsf_tune.search.race import plan_race
from hsf_tune.search.run import plan_search, retry_failed, run_search
from hsf_tune.search.study import open_storage

SMALL = {
    "strategies_per_arm": 4,
    "keep": [2, 1, 1],
    "confirm_folds": 2,
    "confirm_seeds": 1,
    "sampler": "random",
}
ONE_FOLD = {"folds": 2, "keep": [1], "confirm": False}


@pytest.fixture(scope="module")
def search(ray_here):
    """Runs a small search in a folder, with faults if any; outcome and records."""

    def run(folder, faults=(), epoch_s=0.0, observers=(), subjects=10, **settings):
        folder.mkdir(exist_ok=True)
        told = {"faults": list(faults), "epoch_s": epoch_s}
        (folder / "faults.json").write_text(json.dumps(told))
        config = small_search.make_config(**{**SMALL, **settings})
        space = small_search.make_space(None, config)
        records = Records(folder)
        outcome = run_search(
            space.config,
            space,
            small_search.make_splits(confirm=2, subjects=subjects),
            folder,
            records,
            observers=observers,
            base_comparable=True,
            trainer="trivial_trainer",
        )
        return outcome, records

    return run


@pytest.fixture(scope="module")
def whole(search, tmp_path_factory):
    """One undisturbed search with two observers, one of which fails; outcome, records, seen."""
    folder = tmp_path_factory.mktemp("whole")
    seen = []

    def careful(event):
        assert getattr(event, "trial", "") in (folder / "trials.jsonl").read_text()
        seen.append(event)

    def careless(event):
        raise RuntimeError("server away")

    outcome, records = search(folder, observers=[careless, careful], epoch_s=0.03)
    return outcome, records, seen


@pytest.fixture(scope="module")
def troubled(search, tmp_path_factory):
    """One search in which every kind of trial fails; outcome and records."""
    faults = [
        {"trials": "encoder", "epoch": 2, "kind": "exception"},
        {"trials": "decoder-001-f1", "epoch": 2, "kind": "nan"},
        {"trials": "decoder-002-f1", "kind": "memory", "once": True},
        {"trials": "decoder-003-f1", "kind": "memory"},
    ]
    return search(tmp_path_factory.mktemp("troubled"), faults, **ONE_FOLD)


@pytest.fixture(scope="module")
def killed(search, tmp_path_factory):
    """One search whose workers are killed, some once and one again and again."""
    faults = [
        {"trials": "(encoder|decoder)-001-f[12]", "epoch": 3, "kind": "kill", "once": True},
        {"trials": "decoder-002-f1", "epoch": 1, "kind": "kill"},
    ]
    return search(tmp_path_factory.mktemp("killed"), faults, max_retries=1, confirm=False)


def dice_of(records):
    return {r.id: r.ended.dice for r in records.trials.values()}


def states_of(records):
    """State of each explored strategy in optuna.db, by trial."""
    storage = open_storage(records.folder / "optuna.db")
    studies = [optuna.load_study(study_name=a, storage=storage) for a in ("encoder", "decoder")]
    trials = [t for study in studies for t in study.trials if "trial" in t.user_attrs]
    return {t.user_attrs["trial"]: t.state.name for t in trials}


def test_race_runs_each_fold_with_the_strategies_that_are_left(whole):
    """4 strategies an arm on fold 1, 2 on fold 2, 1 on folds 3 and 4; then all is confirmed."""
    outcome, records, _ = whole
    counts = Counter(
        (r.started.phase, r.started.arm, r.started.fold) for r in records.trials.values()
    )
    assert outcome.status == "finished"
    for arm in ("encoder", "decoder"):
        assert [counts["explore", arm, fold] for fold in (1, 2, 3, 4)] == [4, 2, 1, 1]
        assert [counts["confirm", arm, fold] for fold in (1, 2)] == [1, 1]
    for arm in ("base", "documented_default"):
        assert counts["explore", arm, 1] == 1
        assert [counts["confirm", arm, fold] for fold in (1, 2)] == [1, 1]
    assert all(r.finished for r in records.trials.values())


def test_planned_trials_are_those_that_run(whole):
    """What a dry run announces is what happens."""
    space = small_search.make_space(None, small_search.make_config(**SMALL))
    splits = small_search.make_splits(confirm=2)
    planned = plan_search(space.config, space, splits, base_comparable=True)
    assert planned.trials == len(whole[1].trials)


def test_trials_run_side_by_side_in_workers_that_are_used_again(whole):
    """Two at a time, in two processes, each with the trial's own number of threads."""
    trials = whole[1].trials.values()
    spans = [(r.started.time, r.ended.time) for r in trials]
    assert len({r.started.device for r in trials if r.started.max_epochs}) == 2
    assert sum(a[0] < b[0] < a[1] for a in spans for b in spans) >= 3
    assert {e.metrics["threads"] for r in trials for e in r.epochs.values()} == {1}


def test_observers_are_told_what_is_already_recorded_and_may_fail(whole):
    """An observer's exception is noted once; no trial notices, the others miss nothing."""
    _, records, seen = whole
    warnings = [note.text for note in records.noted(Warned)]
    assert len(warnings) == 1
    assert "server away" in warnings[0]
    assert sorted(e.trial for e in seen if isinstance(e, TrialEnded)) == sorted(records.trials)
    epochs = sum(len(r.epochs) for r in records.trials.values())
    assert sum(isinstance(e, EpochEnded) for e in seen) == epochs


def test_finished_search_runs_nothing_again_and_takes_more_strategies(search, whole, tmp_path):
    """Called once more it adds no trial; with more strategies, a note voids the confirmation."""
    first, before, _ = whole
    folder = tmp_path / "copy"
    shutil.copytree(before.folder, folder)
    again, records = search(folder)
    assert again.finalists == first.finalists
    times = [r.started.time for r in records.trials.values()]
    assert times == [r.started.time for r in before.trials.values()]
    _, records = search(folder, strategies_per_arm=6)
    numbers = {proposed.number for proposed in records.noted(Proposed)}
    assert numbers == {1, 2, 3, 4, 5, 6}
    assert len(records.noted(ConfirmationVoided)) == 1


def test_trials_that_fail_are_recorded_and_the_search_goes_on(troubled):
    """Reason and traceback are kept, Optuna is told FAIL, and they go no further."""
    outcome, records = troubled
    assert outcome.status == "finished"
    for trial, reason in {
        "explore-encoder-001-f1": "RuntimeError: this trial was told to fail",
        "explore-decoder-001-f1": "the loss became nan in epoch 2",
    }.items():
        record = records.trials[trial]
        assert (record.ended.status, record.ended.reason) == ("failed", reason)
        assert "Traceback" in record.ended.traceback
        assert set(record.epochs) == {0, 1}
        assert states_of(records)[trial] == "FAIL"
        assert trial.replace("-f1", "-f2") not in records.trials
    assert records.trials["explore-decoder-004-f1"].finished


def test_out_of_memory_is_retried_once_alone(troubled):
    """A trial that runs out of memory once succeeds alone; one that always does has failed."""
    _, records = troubled
    assert records.trials["explore-decoder-002-f1"].finished
    failed = records.trials["explore-decoder-003-f1"].ended
    assert (failed.status, failed.reason[:13]) == ("failed", "out of memory")
    notes = [note.trial for note in records.noted(RetriedAlone)]
    assert sorted(notes) == ["explore-decoder-002-f1", "explore-decoder-003-f1"]
    for trial in notes:
        begun, ended = records.trials[trial].started.time, records.trials[trial].ended.time
        others = [r for r in records.trials.values() if r.id != trial]
        assert all(r.ended.time < begun or r.started.time > ended for r in others)
    assert states_of(records)["explore-decoder-003-f1"] == "FAIL"


def test_arm_whose_trials_all_fail_is_named(troubled):
    """The other arm is searched to its end."""
    outcome, _ = troubled
    assert outcome.failed_arms == ("encoder",)
    assert outcome.finalists["encoder"] == []
    assert len(outcome.finalists["decoder"]) == 1


def test_killed_worker_costs_nothing_but_time(killed, whole):
    """A trial whose worker is killed in the middle ends with the same Dice, to the last digit."""
    records, undisturbed = killed[1], whole[1]
    for trial in ("explore-encoder-001-f1", "explore-decoder-001-f1"):
        assert dice_of(records)[trial] == dice_of(undisturbed)[trial]
        record = records.trials[trial]
        assert sorted(record.epochs) == list(range(record.started.max_epochs))


def test_worker_that_keeps_dying_fails_its_trial_only(killed):
    """After max_retries the trial has failed; the search is complete."""
    outcome, records = killed
    ended = records.trials["explore-decoder-002-f1"].ended
    assert (outcome.status, ended.status) == ("finished", "failed")
    assert "worker died" in ended.reason
    assert states_of(records)["explore-decoder-002-f1"] == "FAIL"
    assert sum(not r.finished for r in records.trials.values()) == 1


def test_second_search_on_the_same_folder_is_refused(search, tmp_path):
    """The first one's lock holds; nothing is changed."""
    lock = FileLock(tmp_path / ".lock")
    with lock, pytest.raises(SearchError, match="is in use"):
        search(tmp_path)
    assert not (tmp_path / "trials.jsonl").exists()


def test_full_disk_ends_the_search_and_fails_no_trial(search, tmp_path):
    """The error says what to do; once there is room, the search goes on to its end."""
    disk = {"trials": "encoder-001-f1", "epoch": 3, "kind": "disk", "once": True}
    with pytest.raises(SearchError, match=r"explore-encoder-001-f1 stopped: no space left.*--res"):
        search(tmp_path, [disk], **ONE_FOLD)
    outcome, records = search(tmp_path, [disk], **ONE_FOLD)
    assert outcome.status == "finished"
    assert all(r.finished for r in records.trials.values())


def test_files_that_are_away_end_the_search_and_fail_no_trial(search, tmp_path):
    """As a full disk does: once the share is back, the search goes on to its end."""
    away = {"trials": "encoder-001-f1", "epoch": 3, "kind": "away", "once": True}
    with pytest.raises(SearchError, match=r"f1 stopped: files can't be used .*Bring back.*--res"):
        search(tmp_path, [away], **ONE_FOLD)
    outcome, records = search(tmp_path, [away], **ONE_FOLD)
    assert outcome.status == "finished"
    assert all(r.finished for r in records.trials.values())


def test_failed_trials_are_tried_again_when_asked(search, troubled, tmp_path):
    """Without the faults all of them finish, in the records and in Optuna's study."""
    folder = tmp_path / "copy"
    shutil.copytree(troubled[1].folder, folder)
    search(folder, **ONE_FOLD)
    assert sum(not r.finished for r in Records(folder).trials.values()) > 2, "not unasked"
    tried = retry_failed(Records(folder), small_search.make_config())
    assert "explore-encoder-001-f1" in tried
    outcome, records = search(folder, **ONE_FOLD)
    assert outcome.failed_arms == ()
    assert all(r.finished for r in records.trials.values())
    assert states_of(records)["explore-encoder-001-f1"] == "COMPLETE"


@pytest.mark.parametrize("trouble", ["database or disk is full", "disk I/O error"])
def test_a_study_that_cannot_be_written_ends_the_search_in_a_sentence(tmp_path, trouble):
    """SQLite's errors are the disk's: what was recorded is safe."""
    config = small_search.make_config(**SMALL)
    space, splits = small_search.make_space(None, config), small_search.make_splits()
    plan = plan_race(space, config.search, splits, 42, base=False)
    coordinator = Coordinator(plan=plan, records=Records(tmp_path), studies={})

    def write():
        try:
            raise sqlite3.OperationalError(trouble)
        except sqlite3.Error as error:
            raise optuna.exceptions.StorageInternalError("An exception is raised") from error

    coordinator.guarded(write)
    assert isinstance(coordinator.fault, SearchError)
    assert f"({trouble}). What was recorded is safe" in str(coordinator.fault)
    assert f"--resume {tmp_path.name}" in str(coordinator.fault)


def test_vanished_folder_ends_the_search(search, tmp_path):
    """The records are not begun anew in its place."""
    vanish = {"trials": "encoder-001-f1", "epoch": 3, "kind": "vanish"}
    with pytest.raises(SearchError, match=r"trials.jsonl has vanished"):
        search(tmp_path / "run", [vanish], **ONE_FOLD)
    assert not (tmp_path / "run" / "trials.jsonl").exists()


def test_a_fault_of_a_folder_that_goes_is_told_as_that(tmp_path):
    """Its files go one by one: the study's before the records."""
    config = small_search.make_config(**SMALL)
    space, splits = small_search.make_space(None, config), small_search.make_splits()
    records = Records(tmp_path)
    plan = plan_race(space, config.search, splits, 42, base=False)
    coordinator = Coordinator(plan=plan, records=records, studies={})
    coordinator.record(TrialStarted("explore-a-001-f1", "explore", "a", {}, 1, 42, 4, [], []))

    def lose_the_study():
        threading.Timer(0.3, records.path.unlink).start()
        raise RuntimeError("attempt to write a readonly database")

    coordinator.guarded(lose_the_study)
    assert isinstance(coordinator.fault, SearchError)
    assert "trials.jsonl has vanished" in str(coordinator.fault)


def test_time_budget_ranks_what_is_done_and_can_be_lifted(search, whole, tmp_path):
    """What is done by then is ranked; without the budget the search goes on to the same end."""
    cut, records = search(tmp_path, epoch_s=0.4, time_budget_s=6.0)
    assert (cut.status, cut.exit_code) == ("time_budget", 0)
    assert "time budget is used up" in records.notes[-1].text
    assert sum(r.ended is not None for r in records.trials.values()) < len(whole[1].trials)
    done, records = search(tmp_path)
    assert done.status == "finished"
    assert dice_of(records) == dice_of(whole[1])


def test_median_pruner_ends_trials_below_the_median(search, tmp_path):
    """Once settled and in enough company, a poor trial ends early and Optuna hears PRUNED."""
    settings = {**ONE_FOLD, "strategies_per_arm": 12, "pruner": "median"}
    _, records = search(tmp_path, subjects=20, **settings)
    pruned = [r for r in records.trials.values() if r.ended.status == "pruned"]
    assert pruned
    for record in pruned:
        settled = max(record.started.opening_epochs.values()) + 2
        assert settled <= max(record.epochs) < record.started.max_epochs - 1
        assert "median" in record.ended.reason
        assert states_of(records)[record.id] == "PRUNED"
        assert record.id.replace("-f1", "-f2") not in records.trials
