"""Searches on a real Ray instance, with a trainer that learns nothing."""

import json
from collections import Counter

import optuna
import pytest
from filelock import FileLock

from hsf_tune.errors import SearchError
from hsf_tune.records import EpochEnded, Records, TrialEnded
from hsf_tune.search.run import plan_search, run_search
from hsf_tune.search.study import open_storage

SMALL = {"strategies_per_arm": 4, "keep": [2, 1, 1], "confirm_folds": 2, "confirm_seeds": 1}


@pytest.fixture
def search(ray_here, tmp_path, make_config, make_space, make_splits):
    """Runs a small search in a folder, with faults if any; outcome and records."""

    def run(faults=(), epoch_s=0.0, observers=(), name="run", base=True, subjects=10, **settings):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        told = {"faults": list(faults), "epoch_s": epoch_s}
        (folder / "faults.json").write_text(json.dumps(told))
        config = make_config(**{**SMALL, **settings})
        space = make_space(None, config)
        records = Records(folder)
        outcome = run_search(
            space.config,
            space,
            make_splits(confirm=2, subjects=subjects),
            folder,
            records,
            observers=observers,
            base_comparable=base,
            trainer="trivial_trainer",
        )
        return outcome, records

    return run


@pytest.fixture
def explored(search):
    """Runs only the first fold of one small search."""

    def run(faults=(), n=3, **settings):
        return search(
            faults,
            **{"strategies_per_arm": n, "folds": 2, "keep": [1], "confirm": False, **settings},
        )

    return run


def dice_of(records):
    return {r.id: r.ended.dice for r in records.trials.values()}


def states_of(records):
    """State of each explored strategy in optuna.db, by trial."""
    storage = open_storage(records.folder / "optuna.db")
    studies = [optuna.load_study(study_name=a, storage=storage) for a in ("encoder", "decoder")]
    return {t.user_attrs["trial"]: t.state.name for s in studies for t in s.trials
            if "trial" in t.user_attrs}  # fmt: skip


def test_race_runs_each_fold_with_the_strategies_that_are_left(search):
    """4 strategies an arm on fold 1, 2 on fold 2, 1 on folds 3 and 4; then all is confirmed."""
    outcome, records = search()
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


def test_finished_search_runs_nothing_again(search, make_config, make_space, make_splits):
    """Called once more on the same folder, a search adds no trial and finds the same."""
    first, records = search()
    space = make_space(None, make_config(**SMALL))
    planned = plan_search(space.config, space, make_splits(confirm=2), base_comparable=True)
    assert len(records.trials) == planned.trials
    before = [r.started.time for r in records.trials.values()]
    again, reread = search()
    assert again.finalists == first.finalists
    assert [r.started.time for r in reread.trials.values()] == before


FAULTS = {"nan": "loss became nan", "exception": "RuntimeError: this trial was told"}


@pytest.mark.parametrize("kind", FAULTS)
def test_trial_that_fails_is_recorded_and_the_search_goes_on(explored, kind):
    """Its reason and traceback are kept, Optuna is told FAIL, and it goes no further."""
    fault = {"trials": "explore-encoder-001-f1", "epoch": 2, "kind": kind}
    outcome, records = explored([fault])
    failed = records.trials["explore-encoder-001-f1"].ended
    assert outcome.status == "finished"
    assert failed.status == "failed"
    assert FAULTS[kind] in failed.reason
    assert "Traceback" in failed.traceback
    assert set(records.trials["explore-encoder-001-f1"].epochs) == {0, 1}
    assert states_of(records)["explore-encoder-001-f1"] == "FAIL"
    assert "explore-encoder-001-f2" not in records.trials
    assert sum(r.finished for r in records.trials.values()) == len(records.trials) - 1


def test_out_of_memory_is_retried_once_alone(explored):
    """A trial that runs out of memory once succeeds alone; one that always does has failed."""
    faults = [
        {"trials": "explore-encoder-001-f1", "kind": "memory", "once": True},
        {"trials": "explore-decoder-001-f1", "kind": "memory"},
    ]
    _, records = explored(faults)
    assert records.trials["explore-encoder-001-f1"].finished
    failed = records.trials["explore-decoder-001-f1"].ended
    assert (failed.status, failed.reason[:13]) == ("failed", "out of memory")
    notes = [n.data["trial"] for n in records.notes if n.about == "retry_alone"]
    assert sorted(notes) == ["explore-decoder-001-f1", "explore-encoder-001-f1"]
    assert states_of(records)["explore-decoder-001-f1"] == "FAIL"


def test_arm_whose_trials_all_fail_is_named(explored):
    """The other arm is searched to its end."""
    outcome, _ = explored([{"trials": "encoder", "kind": "exception"}])
    assert outcome.failed_arms == ("encoder",)
    assert outcome.finalists["encoder"] == []
    assert len(outcome.finalists["decoder"]) == 1


def test_killed_worker_costs_nothing_but_time(explored):
    """A trial whose worker is killed in the middle ends with the same Dice, to the last digit."""
    _, undisturbed = explored(name="undisturbed")
    kill = {"trials": "encoder-00[12]-f1|decoder-001-f1", "epoch": 3, "kind": "kill", "once": True}
    _, disturbed = explored([kill], name="disturbed")
    first = [t for t in dice_of(undisturbed) if "00" in t and t.endswith("-001-f1")]
    assert first
    for trial in first:
        assert dice_of(disturbed)[trial] == dice_of(undisturbed)[trial]
    for record in disturbed.trials.values():
        assert sorted(record.epochs) == list(range(record.started.max_epochs))


def test_worker_that_keeps_dying_fails_its_trial_only(explored):
    """After max_retries the trial has failed; the search is complete."""
    kill = {"trials": "encoder-001-f1", "epoch": 1, "kind": "kill"}
    outcome, records = explored([kill], n=2, max_retries=1)
    ended = records.trials["explore-encoder-001-f1"].ended
    assert (outcome.status, ended.status) == ("finished", "failed")
    assert "worker died" in ended.reason
    assert states_of(records)["explore-encoder-001-f1"] == "FAIL"


def test_observer_sees_what_is_already_recorded_and_may_fail(explored, tmp_path):
    """An observer's exception is noted once; no trial notices."""
    seen = []

    def careful(event):
        lines = (tmp_path / "run" / "trials.jsonl").read_text()
        assert getattr(event, "trial", "") in lines
        seen.append(event)

    def careless(event):
        raise RuntimeError("server away")

    outcome, records = explored(observers=[careless, careful], n=2)
    assert outcome.status == "finished"
    assert [n.text for n in records.notes if "server away" in n.text] == [
        next(n.text for n in records.notes if n.about == "warning")
    ]
    trials = [e.trial for e in seen if isinstance(e, TrialEnded)]
    assert sorted(trials) == sorted(records.trials)
    assert sum(isinstance(e, EpochEnded) for e in seen) == sum(
        len(r.epochs) for r in records.trials.values()
    )


def test_second_search_on_the_same_folder_is_refused(explored, tmp_path):
    """The first one's lock holds; nothing is changed."""
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"), pytest.raises(SearchError, match="is in use"):
        explored()
    assert not (tmp_path / "run" / "trials.jsonl").exists()


def test_full_disk_ends_the_search_and_fails_no_trial(explored):
    """The error says what to do; once there is room, the search goes on to its end."""
    disk = {"trials": "encoder-001-f1", "epoch": 3, "kind": "disk", "once": True}
    with pytest.raises(SearchError, match=r"explore-encoder-001-f1 stopped: no space left.*--res"):
        explored([disk], n=2)
    outcome, records = explored([disk], n=2)
    assert outcome.status == "finished"
    assert all(r.finished for r in records.trials.values())


def test_vanished_folder_ends_the_search(explored, tmp_path):
    """The records are not begun anew in its place."""
    vanish = {"trials": "encoder-001-f1", "epoch": 3, "kind": "vanish"}
    with pytest.raises(SearchError, match=r"trials.jsonl has vanished"):
        explored([vanish], n=2)
    assert not (tmp_path / "run" / "trials.jsonl").exists()


def test_time_budget_ranks_what_is_done_and_can_be_lifted(explored):
    """What is done by then is ranked; without the budget the search goes on to the same end."""
    _, whole = explored(name="whole", sampler="random")
    cut, records = explored(name="cut", sampler="random", epoch_s=0.4, time_budget_s=9.0)
    assert (cut.status, cut.exit_code) == ("time_budget", 0)
    assert "time budget is used up" in records.notes[-1].text
    ended = [r for r in records.trials.values() if r.ended]
    assert len(ended) < len(whole.trials)
    done, records = explored(name="cut", sampler="random")
    assert done.status == "finished"
    assert dice_of(records) == dice_of(whole)


def test_more_strategies_void_the_confirmation(search):
    """A finished search takes more strategies; a note says what that does."""
    search(base=False)
    _, records = search(base=False, strategies_per_arm=6)
    numbers = {n.data["number"] for n in records.notes if n.about == "proposed"}
    assert numbers == {1, 2, 3, 4, 5, 6}
    assert [n.about for n in records.notes].count("confirmation_voided") == 1


def test_median_pruner_ends_trials_below_the_median(explored):
    """Once settled and in enough company, a poor trial ends early and Optuna hears PRUNED."""
    _, records = explored(n=12, pruner="median", sampler="random", subjects=20)
    pruned = [r for r in records.trials.values() if r.ended.status == "pruned"]
    assert pruned
    for record in pruned:
        settled = max(record.started.opening_epochs.values()) + 2
        assert settled <= max(record.epochs) < record.started.max_epochs - 1
        assert "median" in record.ended.reason
        assert states_of(records)[record.id] == "PRUNED"
        assert record.id.replace("-f1", "-f2") not in records.trials


def test_trials_run_side_by_side_in_workers_that_are_used_again(explored):
    """Two at a time, in two processes, each with the trial's own number of threads."""
    _, records = explored(n=6, epoch_s=0.1, sampler="random")
    ids = {r.started.device for r in records.trials.values() if r.started.max_epochs}
    spans = [(r.started.time, r.ended.time) for r in records.trials.values()]
    overlaps = sum(a[0] < b[0] < a[1] for a in spans for b in spans)
    assert len(ids) == 2
    assert overlaps >= 3
    threads = {e.metrics["threads"] for r in records.trials.values() for e in r.epochs.values()}
    assert threads == {1}
