"""An arm's Optuna study: what it proposes, what it is told, and what a crash leaves."""

import json
import math
import sqlite3
from contextlib import closing

import optuna
import pytest
from optuna.trial import TrialState

from hsf_tune.errors import SearchError
from hsf_tune.records import EpochEnded, TrialEnded, TrialRecord, TrialStarted
from hsf_tune.search.study import ArmStudy, open_storage, storage_errors
from hsf_tune.strategy import strategy_key

RATE = {"log": [1e-4, 3e-2]}
ENCODER = {
    "finetuning.mode": "encoder",
    "finetuning.depth": {"int": [1, 4]},
    "finetuning.unfreeze_frequency": {"choice": [1, 2, 4]},
    "models.lr": RATE,
}
FINITE = {
    "finetuning.mode": "encoder",
    "finetuning.depth": {"int": [0, 3]},
    "finetuning.unfreeze_frequency": {"choice": [1, 2]},
}


@pytest.fixture
def study_of(tmp_path, make_config, make_space):
    """Opens the study of a one-armed space; again on the same file if called again."""

    def build(keys=ENCODER, start=(), epochs=20, file="optuna.db", seed=42, **settings):
        content = {"lightning.max_epochs": epochs, "arms": {"a": keys}, "start": list(start)}
        config = make_config(**settings)
        space = make_space(content, config)
        storage = open_storage(tmp_path / file)
        return ArmStudy(space.arms[0], space.terms, config.search, storage, seed)

    return build


def record_of(trial, status="finished", dice=0.7, epochs=(), reason=None):
    started = TrialStarted(trial, "explore", "a", {}, 1, 42, 20, [], [])
    found = {i: EpochEnded(trial, i, {"val_dice": d}) for i, d in enumerate(epochs)}
    return TrialRecord(started, found, TrialEnded(trial, status, dice, reason=reason))


def value_of(strategy):
    return 0.8 - 0.1 * abs(math.log10(strategy["models.lr"] / 3e-3))


def search(study, n, first=1, known=None):
    """Propose and tell `n` strategies one after the other."""
    known = {} if known is None else known
    proposals = []
    for number in range(first, first + n):
        proposal = study.propose(number, f"t{number}", known)
        dice = value_of(proposal.strategy)
        study.tell(f"t{number}", record_of(f"t{number}", dice=dice))
        known[proposal.key] = dice
        proposals.append(proposal)
    return proposals


def test_start_points_are_proposed_first(study_of):
    """In the order they were written, the documented default before all."""
    start = [{"finetuning.depth": -1, "finetuning.unfreeze_frequency": 2, "models.lr": 1e-3}]
    first, second = search(study_of({**ENCODER, "finetuning.mode": "decoder",
                                     "finetuning.depth": {"int": [1, 3]}}, start), 2)  # fmt: skip
    assert first.strategy["finetuning.unfreeze_frequency"] == 4
    assert second.strategy["finetuning.unfreeze_frequency"] == 2
    assert first.strategy["finetuning.depth"] == second.strategy["finetuning.depth"] == 3


def test_tpe_learns_where_random_does_not(study_of):
    """With 24 strategies TPE's later half is closer to the best rate than random's."""

    def distance(sampler):
        found = search(study_of(file=f"{sampler}.db", sampler=sampler), 24)[12:]
        return sum(0.8 - value_of(p.strategy) for p in found)

    assert distance("tpe") < 0.7 * distance("random")


def test_killed_search_proposes_what_it_would_have(study_of):
    """A study opened again after each proposal proposes the same as one that lived on."""
    whole = [p.strategy for p in search(study_of(file="whole.db"), 10)]
    known, parts = {}, []
    for number in range(1, 11):
        parts += [p.strategy for p in search(study_of(file="parts.db"), 1, number, known)]
    assert parts == whole


def test_other_seed_proposes_otherwise(study_of):
    """The seed decides."""
    assert search(study_of(file="a.db"), 3) != search(study_of(file="b.db", seed=7), 3)


def test_suggestions_whose_openings_do_not_fit_are_told_fail(study_of):
    """TPE passes over FAIL; what was proposed always fits, and no trial stays open."""
    study = study_of(epochs=8)
    for proposal in search(study, 8):
        s = proposal.strategy
        assert (s["finetuning.depth"] + 1) * s["finetuning.unfreeze_frequency"] <= 8
    states = {t.state for t in study.study.trials}
    assert states == {TrialState.COMPLETE, TrialState.FAIL}


def test_repeated_strategy_is_answered_from_the_records(study_of):
    """The study hears the known Dice for it, and another strategy is proposed."""
    study = study_of(FINITE, sampler="random")
    known = {}
    for number in range(1, 8):  # depth 0 once, depths 1 to 3 at two frequencies
        proposal = study.propose(number, f"t{number}", known)
        assert proposal.key not in known
        known[proposal.key] = 0.1 * number
        study.tell(f"t{number}", record_of(f"t{number}", dice=0.1 * number))
    assert study.propose(8, "t8", known) is None
    repeated = [t for t in study.study.trials if "repeats" in t.user_attrs.get("reason", "")]
    assert repeated
    assert all(t.state == TrialState.COMPLETE and t.value in known.values() for t in repeated)


def test_grid_visits_every_point_once(study_of):
    """All seven strategies of a finite arm, then none."""
    study = study_of(FINITE, sampler="grid")
    known = {}
    for number in range(1, 8):
        known[study.propose(number, f"t{number}", known).key] = 0.5
    assert len(known) == 7
    assert study.propose(8, "t8", known) is None


def test_grid_tries_a_rate_at_five_points_not_its_ends_alone(study_of):
    """12 of the encoder's 60 strategies: ends alone would already give 24."""
    study = study_of(sampler="grid", strategies_per_arm=12)
    known = {}
    for number in range(1, 13):
        known[(study.propose(number, f"t{number}", known)).key] = 0.5
    rates = {json.loads(key)["models.lr"] for key in known}
    assert len(known) == 12
    assert len(rates) >= 4


def test_each_end_is_told_as_what_it_was(study_of):
    """Finished with a Dice: COMPLETE; pruned: PRUNED with its step; all else: FAIL."""
    study = study_of()
    ends = {
        "t1": record_of("t1", dice=0.7),
        "t2": record_of("t2", "pruned", None, epochs=[0.1, 0.2, 0.3], reason="below the median"),
        "t3": record_of("t3", "failed", None, reason="the loss became nan"),
        "t4": record_of("t4", dice=math.nan),
    }
    for number, (trial, record) in enumerate(ends.items(), start=1):
        study.propose(number, trial, {})
        study.tell(trial, record)
        study.tell(trial, record)  # without effect
    told = {t.user_attrs["trial"]: t for t in study.study.trials}
    assert [told[t].state.name for t in ends] == ["COMPLETE", "PRUNED", "FAIL", "FAIL"]
    assert told["t1"].value == 0.7
    assert told["t2"].intermediate_values == {2: 0.3}
    assert told["t3"].user_attrs["reason"] == "the loss became nan"


def test_proposal_cut_off_by_a_crash_is_taken_up_again(study_of):
    """A trial asked for but never handed out is the next proposal, not a zombie."""
    study = study_of()
    study.study.sampler = optuna.samplers.RandomSampler(1)
    lost = study.study.ask()
    lost.suggest_float("models.lr", 1e-4, 3e-2, log=True)
    proposal = study_of().propose(1, "t1", {})
    assert proposal.strategy["models.lr"] == lost.params["models.lr"]
    assert [t.state for t in study_of().study.trials] == [TrialState.RUNNING]


def test_proposal_accepted_but_not_recorded_is_proposed_again(study_of):
    """A driver killed between study and records leaves one trial in the study, not two."""
    lost = study_of().propose(1, "t1", {})
    study = study_of()
    study.catch_up({}, {})
    assert study.propose(1, "t1", {}) == lost
    assert [t.user_attrs["trial"] for t in study_of().study.trials] == ["t1"]
    other = study.propose(2, "t2", {lost.key: None})
    assert other != lost


def test_end_that_a_crash_kept_from_the_study_is_told_later(study_of):
    """The records know how a trial ended; the study hears of it when it is opened again."""
    study = study_of()
    proposal = study.propose(1, "t1", {})
    study_of().catch_up({"t1": proposal}, {"t1": record_of("t1", dice=0.66)})
    (trial,) = study_of().study.trials
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.66)


def test_lost_study_is_rebuilt_from_the_records(study_of):
    """After the loss of optuna.db the study holds all values again, and goes on."""
    known = {}
    proposals = search(study_of(file="lost.db"), 6, known=known)
    study = study_of(file="new.db")
    study.catch_up(
        {f"t{i}": p for i, p in enumerate(proposals, start=1)},
        {f"t{i}": record_of(f"t{i}", dice=known[p.key]) for i, p in enumerate(proposals, start=1)},
    )
    assert [t.value for t in study.study.trials] == [known[p.key] for p in proposals]
    assert [t.params for t in study.study.trials] == [dict(p.params) for p in proposals]
    assert strategy_key(study.propose(7, "t7", known).strategy) not in known


def broken_schema(path):
    with sqlite3.connect(path) as connection:
        for statement in ("DROP TABLE studies", "CREATE TABLE studies (name TEXT)"):
            connection.execute(statement)


def cut(path):
    path.write_bytes(path.read_bytes()[:20_000])


def become_a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [lambda path: path.write_bytes(b"garbage" * 999), cut, broken_schema, become_a_folder],
    ids=["garbage", "cut", "schema", "folder"],
)
def test_a_file_that_holds_no_studies_is_set_aside_and_rebuilt(study_of, tmp_path, damage):
    """As a deleted one is: the records know what was proposed and how it did."""
    proposals = search(study_of(), 4)
    path = tmp_path / "optuna.db"
    damage(path)
    study = study_of()
    study.catch_up(
        {f"t{n}": p for n, p in enumerate(proposals, start=1)},
        {f"t{n}": record_of(f"t{n}") for n in range(1, 5)},
    )
    assert [t.state for t in study.study.trials] == [TrialState.COMPLETE] * 4
    assert (tmp_path / "optuna.db.unreadable-1").exists()
    assert path.is_file()


def test_a_sound_file_is_kept(study_of, tmp_path):
    """Opened again, with all that it holds."""
    search(study_of(), 2)
    assert len(study_of().study.trials) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["optuna.db"]


def test_a_locked_file_is_not_taken_for_a_damaged_one(study_of, tmp_path, monkeypatch):
    """Another program that writes there must not cost its work."""
    search(study_of(), 1)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **{**k, "timeout": 0.1}))
    with closing(connect(tmp_path / "optuna.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with (
            pytest.raises(SearchError, match=r"database is locked.*--resume run"),
            storage_errors("run"),
        ):
            study_of()
    assert (tmp_path / "optuna.db").exists()


def test_a_folder_for_studies_that_cannot_be_made_is_named(tmp_path):
    """search.state_dir below a file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SearchError, match=r"file/run can't hold .*search\.state_dir=DIR"):
        open_storage(tmp_path / "file" / "run" / "optuna.db")
