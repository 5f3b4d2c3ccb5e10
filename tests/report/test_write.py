"""What is written, from which records."""

import errno
import json
import shutil
import time

import jsonschema
import pytest
from markupsafe import escape
from PIL import Image
from plotly.offline import get_plotlyjs

from hsf_tune.cli.winner import test_jobs as jobs_on_test_set
from hsf_tune.data.splits import Splits
from hsf_tune.errors import HsfTuneError, RunError
from hsf_tune.installed import typed
from hsf_tune.records import (
    Configured,
    ConfirmationVoided,
    FinalistsNamed,
    Records,
    TimeBudgetUsed,
    TrialEnded,
    TrialStarted,
)
from hsf_tune.report import read_run, write_report
from hsf_tune.report.summary import schema

ARM_FIELDS = {
    "trials", "epochs", "seconds", "parameters_trained", "explored_dice", "confirmed_dice_mean",
    "confirmed_dice_ci95", "n_subjects",
}  # fmt: skip
SECTIONS = (
    "Arms and baselines", "How sure", "How the finalists learned", "The search", "Label by label",
    "Volumes", "Labels to look at again", "Data", "To repeat it",
)  # fmt: skip


@pytest.fixture(scope="module")
def report(finished_run):
    return write_report(finished_run)


def test_json_holds_verdict_arms_differences_and_baselines(report, finished_run):
    """The file on disk, read as a program would, with the fields that users are promised."""
    found = json.loads((finished_run / "report.json").read_text())
    jsonschema.Draft202012Validator(schema()).validate(found)
    assert found["verdict"]["status"] == "winner"
    assert found["verdict"]["arm"] == "encoder"
    assert set(found["arms"]) == {"encoder", "decoder", "full", "head"}
    own = ARM_FIELDS | {
        "best_strategy", "best_explored_dice", "best_confirmed_dice", "best_confirmed_ci95",
    }  # fmt: skip
    assert all(set(fields) == own for fields in found["arms"].values())
    assert found["arms"]["encoder"]["best_strategy"]["finetuning.mode"] == "encoder"
    assert set(found["baselines"]) == {"base", "documented_default"}
    assert found["test"] is None
    assert {"between", "claim", "mean", "ci95", "ci90", "p_value", "n_subjects"} <= set(
        found["differences"][0]
    )
    assert found["recommendation"]["strategy"]["finetuning.mode"] == "encoder"


def test_a_strategy_has_one_number_everywhere(report, finished_run):
    """The recommended strategy's Dice is recomputed from the scores; page and table give it so."""
    summary = report.summary
    trials = read_run(finished_run).trials_of(summary["recommendation"]["strategy"], "confirm")
    by_subject = {}
    for score in (s for t in trials for s in t.ended.scores if s.metric == "dice"):
        by_subject.setdefault(score.subject, []).append(score.value)
    mean = sum(sum(v) / len(v) for v in by_subject.values()) / len(by_subject)
    fields = summary["arms"][summary["recommendation"]["arm"]]
    assert fields["best_strategy"] == summary["recommendation"]["strategy"]
    assert fields["best_confirmed_dice"] == pytest.approx(mean)
    html = report.html.read_text().replace(get_plotlyjs(), "")
    assert f"<b>Dice {mean:.3f}</b>" in html
    assert f'<td class="">{mean:.3f}</td>' in html
    assert "mean of finalists" in html


def test_an_arm_shows_as_finalists_those_that_the_search_named(tmp_path, run_writer):
    """Before the confirmation has scores: one was named of four that were explored."""
    searched = run_writer(tmp_path / "h", n_subjects=8, arms=("head",), confirm=False)
    second = searched.strategies["head"][1]
    named = FinalistsNamed("head", [{"number": 2, "strategy": second}])
    assert len(read_run(tmp_path / "h").finalists["head"]) == 1
    Records(tmp_path / "h").append(named)
    assert read_run(tmp_path / "h").finalists["head"] == [second]


def test_an_arms_costs_are_counted_over_all_its_trials(report, finished_run):
    """8 + 6 + 3 + 3 explored and 3 finalists x 5 folds x 2 seeds, 20 epochs each."""
    fields = report.summary["arms"]["encoder"]
    assert fields["trials"] == 20 + 30
    assert fields["epochs"] == 50 * 20
    trials = Records(finished_run).trials.values()
    seconds = sum(t.ended.seconds for t in trials if t.started.arm == "encoder")
    assert fields["seconds"] == pytest.approx(seconds, abs=0.01)


def test_page_holds_the_sentences_and_every_section(report):
    """Escaped text, nothing loaded from elsewhere."""
    html = report.html.read_text().replace(get_plotlyjs(), "")
    assert escape(report.verdict.sentence) in html
    assert escape(report.verdict.recommendation.reason) in html
    for heading in SECTIONS:
        assert f">{heading}</h2>" in html
    assert "<thick>" not in html
    assert "&lt;thick&gt;" in html
    assert 'src="http' not in html
    assert 'href="http' not in html


def test_page_names_the_commands_that_repeat_the_run(report):
    """The command as it was typed, and what to do with the winner."""
    html = report.html.read_text()
    assert typed("tune", "--space", "default") in html
    assert "best_strategy.yaml" in html
    assert typed("export", str(report.html.parent)) in html
    assert "2.13.0" in html
    assert "ab" * 32 in html


def test_writing_takes_seconds(finished_run):
    """A promise of 20 s, for some 170 trials."""
    started = time.perf_counter()
    write_report(finished_run)
    assert time.perf_counter() - started < 20


def test_a_search_that_was_not_confirmed_has_a_report(explored_run):
    """Status, recommendation and what is missing; the schema holds."""
    found = write_report(explored_run).summary
    assert found["verdict"] == {
        "status": "not_confirmed",
        "claim": None,
        "arm": None,
        "sentence": "Not confirmed: the strategies were explored but not confirmed on new folds,"
        " so which arm is better is not known.",
    }
    assert found["recommendation"]["strategy"]
    assert found["differences"] == []
    assert found["arms"]["encoder"]["confirmed_dice_mean"] is None
    assert found["arms"]["encoder"]["explored_dice"] == pytest.approx(0.8, abs=0.05)


def test_a_run_with_nothing_in_it_has_a_report(tmp_path, run_writer):
    """A user may look in the first minute."""
    run_writer(tmp_path / "new", explore=False, confirm=False)
    report = write_report(tmp_path / "new")
    assert "No strategy has been explored yet." in report.html.read_text()


def test_failed_and_running_trials_do_not_disturb(tmp_path, run_writer):
    """They are listed, with their reason, and counted."""
    run_writer(tmp_path / "r", n_subjects=8, confirm=False, arms=("encoder", "decoder"))
    records = Records(tmp_path / "r")
    strategy = {"finetuning.mode": "encoder", "finetuning.depth": 1, "models.lr": 1.0,
                "finetuning.unfreeze_frequency": 1, "lightning.max_epochs": 20}  # fmt: skip
    for name in ("broken", "running"):
        records.append(TrialStarted(name, "explore", "encoder", strategy, 1, 42, 20, [], []))
    records.append(TrialEnded("broken", "failed", reason="Diverged: the loss became NaN"))
    report = write_report(tmp_path / "r")
    assert "broken: failed, Diverged: the loss became NaN" in report.html.read_text()
    assert report.summary["arms"]["encoder"]["trials"] == 20 + 2
    assert "The search is not finished: 1 of its trials have not ended yet." in (
        report.verdict.warnings
    )


def test_a_finetuning_run_has_a_report(tmp_path, run_writer):
    """One trial, no arms: curves and scores, nothing to compare."""
    searched = run_writer(tmp_path / "f", explore=False, confirm=False, arms=())
    strategy = {"finetuning.mode": "decoder", "finetuning.depth": 1, "models.lr": 1e-3,
                "finetuning.unfreeze_frequency": 4, "lightning.max_epochs": 20}  # fmt: skip
    searched.gains[json.dumps(strategy, sort_keys=True)] = 0.0
    events = searched.trial("finetune", "", strategy, "finetune", 1, 42, searched.subjects[:3])
    Records(tmp_path / "f").extend(events)
    assert write_report(tmp_path / "f").verdict.status == "not_confirmed"


def test_pictures_to_paste_are_written_as_png(report, explored_run):
    """Real images of a laptop's width; only the race where nothing was confirmed."""
    assert [p.name for p in report.pictures] == [
        "differences.png",
        "confirmed_dice.png",
        "race.png",
    ]
    for path in report.pictures:
        with Image.open(path) as picture:
            assert picture.width == 1210
    assert [p.name for p in write_report(explored_run).pictures] == ["race.png"]


def test_the_best_trial_is_one_of_the_recommended_strategy(report):
    """What best_strategy.yaml repeats: the confirmation's fold 1 with the first seed."""
    started = report.best_trial.started
    assert dict(started.strategy) == report.summary["recommendation"]["strategy"]
    assert (started.phase, started.fold, started.seed) == ("confirm", 1, 42)


def test_what_the_search_noted_against_itself_is_a_warning(tmp_path, run_writer):
    """Strategies added after a look at the confirmation; a search that was cut short."""
    run_writer(tmp_path / "v", n_subjects=8, arms=("encoder", "decoder"))
    records = Records(tmp_path / "v")
    records.append(ConfirmationVoided(text="more strategies were asked for"))
    records.append(TimeBudgetUsed(text="the time budget is used up after 90 trials"))
    warnings = write_report(tmp_path / "v").verdict.warnings
    assert "The search is not finished: the time budget is used up after 90 trials." in warnings
    assert any("no longer independent" in w for w in warnings)


def test_finalists_are_those_that_the_search_noted(tmp_path, run_writer):
    """The last note of an arm counts; a strategy confirmed earlier is left out."""
    searched = run_writer(tmp_path / "n", n_subjects=8, arms=("encoder", "decoder"))
    run = read_run(tmp_path / "n")
    kept = run.finalists["encoder"][:2]
    encoders = [{"number": 1, "strategy": s} for s in kept]
    Records(tmp_path / "n").append(FinalistsNamed("encoder", encoders))
    decoders = [{"number": 1, "strategy": s} for s in run.finalists["decoder"]]
    Records(tmp_path / "n").append(FinalistsNamed("decoder", decoders))
    assert len(searched.strategies["encoder"]) == 8
    again = read_run(tmp_path / "n")
    assert again.finalists["encoder"] == kept
    assert len(again.confirmation.finalists["decoder"]) == 3


def test_the_test_set_is_reported_apart(tmp_path, run_writer):
    """Scores of phase `test` never enter the verdict."""
    searched = run_writer(tmp_path / "t", n_subjects=10, arms=("encoder", "decoder"))
    before = read_run(tmp_path / "t").verdict.differences
    strategy = searched.strategies["encoder"][0]
    searched.subjects = [f"demo/test-{i}" for i in range(3)]
    searched.difficulty = dict.fromkeys(searched.subjects, 0.5)
    events = searched.trial("test", "encoder", strategy, "test-1", 1, 42, searched.subjects)
    Records(tmp_path / "t").extend(events)
    report = write_report(tmp_path / "t")
    assert report.summary["test"]["n_subjects"] == 3
    assert report.summary["test"]["strategies"][0]["dice_mean"] < 0.7
    assert [d.mean for d in report.verdict.differences] == [d.mean for d in before]


def test_two_searches_are_compared_side_by_side(finished_run, explored_run):
    """One page; the other folder is only read."""
    before = {p: p.stat().st_mtime_ns for p in explored_run.iterdir()}
    html = write_report(finished_run, [explored_run]).html.read_text()
    assert ">Compared with other searches</h2>" in html
    assert ">explored</td>" in html
    assert {p: p.stat().st_mtime_ns for p in explored_run.iterdir()} == before


def test_a_folder_without_a_run_is_named(tmp_path):
    """Where, what was expected, what to do."""
    with pytest.raises(HsfTuneError, match=r"holds no run.*outputs/NAME"):
        write_report(tmp_path)


def test_the_schema_refuses_an_unknown_status(report):
    """It would not be a schema otherwise."""
    broken = json.loads(json.dumps(report.summary))
    broken["verdict"]["status"] = "maybe"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema())


def test_a_search_whose_documented_default_won_has_a_report(tmp_path, run_writer):
    """One arm, the default its best: nothing is left to test but the base."""
    searched = run_writer(tmp_path / "d", arms=("decoder",), confirm=False)
    default = searched.strategies["decoder"][0]
    searched.gains[json.dumps(default, sort_keys=True)] = 0.1
    Records(tmp_path / "d").extend(searched.confirmation())
    report = write_report(tmp_path / "d")
    assert [d.between for d in report.verdict.differences] == [("decoder", "base")]
    assert report.verdict.recommendation.strategy == default


def test_a_search_stopped_after_the_default_alone_has_a_report(tmp_path, run_writer):
    """Where it fits no arm it runs first."""
    searched = run_writer(tmp_path / "o", explore=False, confirm=False)
    default = searched.strategies["decoder"][0]
    events = searched.trial(
        "explore", "documented_default", default, "explore-default-f1", 1, 42, searched.subjects[:3]
    )
    Records(tmp_path / "o").extend(events)
    assert "No strategy has been explored yet." in write_report(tmp_path / "o").html.read_text()


def test_a_locked_test_set_that_was_not_opened_is_not_denied(tmp_path, run_writer):
    """The page says how many subjects wait."""
    run_writer(tmp_path / "l", n_subjects=8, arms=("encoder", "decoder"))
    file = tmp_path / "l" / "dataset.json"
    dataset = json.loads(file.read_text())
    dataset["splits"]["test"] = [f"demo/test-{i}" for i in range(12)]
    file.write_text(json.dumps(dataset))
    page = write_report(tmp_path / "l").html.read_text()
    assert "12 subjects are locked away as a test set" in page
    assert "There is no locked test set" not in page


def test_a_test_set_opened_for_another_strategy_is_labelled(tmp_path, run_writer):
    """The score stays with the strategy that was recommended then."""
    searched = run_writer(tmp_path / "t", n_subjects=10, arms=("encoder", "decoder"))
    other = searched.strategies["decoder"][-1]
    now = read_run(tmp_path / "t").verdict.recommendation.strategy
    assert other != now
    searched.subjects = [f"demo/test-{i}" for i in range(3)]
    searched.difficulty = dict.fromkeys(searched.subjects, 0.5)
    events = searched.trial(
        "test", "recommended", other, "test-recommended", 1, 42, searched.subjects
    )
    Records(tmp_path / "t").extend(events)
    run = read_run(tmp_path / "t")
    assert any(w.startswith("The locked test set was opened for dec") for w in run.verdict.warnings)
    splits = Splits(tuple(searched.subjects), (), ())
    jobs = {job.trial: job.strategy for job in jobs_on_test_set(run.folder, run.config, splits)}
    assert jobs["test-recommended"] == other


def test_a_report_that_does_not_fit_on_the_disk_is_told_in_a_sentence(finished_run, monkeypatch):
    """The records are whole, and the old report stands."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "report.html")

    monkeypatch.setattr("hsf_tune.report.write.write_text", full)
    with pytest.raises(
        RunError, match=r"report\.html can't be written \(No space left.*report\.py"
    ):
        write_report(finished_run)


def test_pictures_are_not_written_through_a_link_out_of_the_run(tmp_path, explored_run):
    """Somebody's folder has a picture of that name; a run from elsewhere has a link to it."""
    run, away = tmp_path / "run", tmp_path / "away"
    shutil.copytree(explored_run, run, ignore=shutil.ignore_patterns("figures"))
    away.mkdir()
    (away / "race.png").write_text("mine")
    (run / "figures").symlink_to(away)
    with pytest.raises(RunError, match="leads out of that folder"):
        write_report(run)
    assert (away / "race.png").read_text() == "mine"


def test_the_documented_default_is_the_one_that_the_run_noted(tmp_path, run_writer):
    """A base of five levels has a decoder of four blocks, whatever the configuration says."""
    searched = run_writer(tmp_path / "n", n_subjects=8, arms=("encoder",), confirm=False)
    noted = searched.strategies["encoder"][2]
    assert read_run(tmp_path / "n").documented_default != noted
    Records(tmp_path / "n").append(Configured({}, documented_default=noted))
    assert read_run(tmp_path / "n").documented_default == noted
