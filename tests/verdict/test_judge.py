"""The verdict on invented confirmations whose truth is known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from hsf_tune.config import VerdictConfig
from hsf_tune.verdict import gather, gather_exploration, judge, verdict_fields

MARGINS = VerdictConfig()
ARMS = ("encoder", "decoder")


def judged(trials, arms=ARMS, **options):
    return judge(gather(trials), gather_exploration(trials), arms, MARGINS, **options)


def test_a_clearly_better_arm_wins(confirmation_trials):
    """.03 better with an SD of .01 and 20 subjects."""
    found = judged(confirmation_trials({"encoder": 0.04, "decoder": 0.01}))
    assert (found.status, found.arm) == ("winner", "encoder")
    assert found.sentence.startswith(
        "Tune the encoder: on average over its finalists it scores 0.0"
    )
    assert found.recommendation.arm == "encoder"


def test_the_better_arm_is_named_when_it_comes_second(confirmation_trials):
    """The sign of the difference must not decide whom the sentence praises."""
    found = judged(confirmation_trials({"encoder": 0.01, "decoder": 0.04}))
    assert (found.status, found.arm) == ("winner", "decoder")
    assert "Tune the decoder" in found.sentence
    assert "more than the encoder (95 % interval 0.0" in found.sentence


def test_equal_arms_with_many_subjects_are_equivalent(confirmation_trials):
    """No winner, and no talk of more subjects."""
    found = judged(confirmation_trials({"encoder": 0.02, "decoder": 0.02}, n=40))
    assert (found.status, found.arm) == ("equivalent", None)
    assert found.sentence.startswith("Equivalent")


def test_noise_is_undecided_and_says_how_many_subjects_would_do(confirmation_trials):
    """Eight subjects with an SD of .02 can't tell."""
    found = judged(confirmation_trials({"encoder": 0.015, "decoder": 0.0}, n=8, sd=0.02))
    assert found.status == "undecided"
    assert "subjects would decide it" in found.sentence


def test_below_six_subjects_even_the_obvious_is_undecided(confirmation_trials):
    """Five subjects, a difference of .3; a recommendation is given all the same."""
    found = judged(confirmation_trials({"encoder": 0.4, "decoder": 0.1}, n=5))
    assert found.status == "undecided"
    assert any("Only 5 subjects" in w for w in found.warnings)
    assert found.recommendation.arm == "encoder"


def test_tests_come_in_the_planned_order(confirmation_trials):
    """Default, encoder against decoder, then the others; `head` has one finalist."""
    trials = confirmation_trials({"encoder": 0.04, "decoder": 0.01, "full": 0.03, "head": 0.0})
    found = judged(trials, arms=("head", "full", "decoder", "encoder"))
    assert [(d.between, d.claim) for d in found.differences] == [
        (("encoder", "documented_default"), "strategy"),
        (("encoder", "decoder"), "arm"),
        (("encoder", "decoder"), "strategy"),
        (("head", "full"), "strategy"),
        (("head", "decoder"), "strategy"),
        (("head", "encoder"), "strategy"),
        (("full", "decoder"), "arm"),
        (("full", "encoder"), "arm"),
        (("encoder", "base"), "strategy"),
    ]


def test_the_arm_claim_is_by_hand_the_mean_over_finalists(confirmation_trials):
    """Mean, parts of the error and t interval, recomputed from the trials with numpy only."""
    trials = confirmation_trials({"encoder": 0.03, "decoder": 0.01}, n=10)
    found = next(d for d in judged(trials).differences if d.claim == "arm")
    table = {}  # (arm, lr, seed, subject) -> dice
    for t in trials:
        for s in t.ended.scores:
            table[t.started.arm, t.started.strategy.get("models.lr"), t.started.seed, s.subject] = (
                s.value
            )
    subjects = sorted({k[3] for k in table})
    rates = [0.002, 0.003, 0.004]
    cells = [
        table[a, lr, seed, s] for a in ARMS for lr in rates for s in subjects for seed in (42, 43)
    ]
    cube = np.array(cells).reshape(2, 3, 10, 2)  # (arm, finalist, subject, seed)
    d = cube[0].mean(0) - cube[1].mean(0)  # (subjects, seeds)
    fold_means = np.array([d[np.arange(10) % 5 == f].mean(0) for f in range(5)])
    se2 = (
        d.mean(1).var(ddof=1) / 10
        + fold_means.var(axis=1, ddof=1).mean() / 10
        + sum(cube[a].mean((1, 2)).var(ddof=1) / 3 for a in (0, 1))
    )
    half = stats.t.ppf(0.975, 9) * np.sqrt(se2)
    assert found.mean == pytest.approx(d.mean())
    assert found.ci95 == pytest.approx((d.mean() - half, d.mean() + half))
    t_p = 2 * stats.t.sf(abs(d.mean()) / np.sqrt(se2), 9)
    exact = stats.permutation_test((d.mean(1),), np.mean, permutation_type="samples",
                                   n_resamples=np.inf).pvalue  # fmt: skip
    assert found.p_value == pytest.approx(max(t_p, exact))


def test_the_documented_default_is_recommended_unless_something_is_probably_better(
    confirmation_trials,
):
    """Strategies no better than the default: the default, with its reason."""
    found = judged(confirmation_trials({"encoder": -0.01, "decoder": -0.02}))
    assert found.recommendation.strategy["models.lr"] == 1e-3
    assert "documented default" in found.recommendation.reason
    assert found.recommendation.arm == "decoder"


def test_the_80_percent_limit_decides_the_recommendation(make_trial):
    """By hand: mean .01, SE .005, t(5) .9 = 1.476, lower limit .0026; at SE .008 it is below 0."""
    default = {"models.lr": 1e-3, "finetuning.mode": "decoder"}
    for spread, expected in ((0.005, 2e-3), (0.008, 1e-3)):
        step = spread * 6**0.5 * (5 / 6) ** 0.5  # six values +-step have sample SD spread * sqrt(6)
        trials = []
        for i in range(6):
            gain = 0.01 + (step if i % 2 else -step)
            trials += [
                make_trial("encoder", {"models.lr": 2e-3}, {f"d/s{i}": 0.8 + gain}, fold=i + 1),
                make_trial("documented_default", default, {f"d/s{i}": 0.8}, fold=i + 1),
            ]
        found = judged(trials)
        assert found.differences[0].se == pytest.approx(spread)
        assert found.recommendation.strategy["models.lr"] == expected


def test_a_base_better_than_every_strategy_is_warned_about(confirmation_trials):
    """Finetuning can hurt; the report must not hide it."""
    found = judged(confirmation_trials({"encoder": 0.01, "decoder": 0.0}, base=0.1))
    assert any("unchanged base model scores higher" in w for w in found.warnings)


def test_one_arm_is_compared_with_the_default_only(confirmation_trials):
    """A space with one arm answers a smaller question."""
    found = judged(confirmation_trials({"encoder": 0.04}), arms=("encoder",))
    assert (found.status, found.arm) == ("single_arm", None)
    assert (
        "The best strategy of the encoder against the documented default: better" in found.sentence
    )


def test_without_confirmation_nothing_is_claimed(make_trial):
    """The exploration's leader, of those that went furthest, is recommended with its caveat."""
    slow, fast, lucky = ({"models.lr": x} for x in (1e-4, 1e-3, 1e-2))
    trials = [
        make_trial("encoder", slow, {"d/s1": 0.70}, phase="explore", fold=1),
        make_trial("encoder", slow, {"d/s2": 0.70}, phase="explore", fold=2),
        make_trial("decoder", fast, {"d/s1": 0.75}, phase="explore", fold=1),
        make_trial("decoder", fast, {"d/s2": 0.75}, phase="explore", fold=2),
        make_trial("decoder", lucky, {"d/s1": 0.90}, phase="explore", fold=1),
    ]
    found = judged(trials)
    assert (found.status, found.arm) == ("not_confirmed", None)
    assert found.recommendation.strategy == fast
    assert "0.750 over 2 folds" in found.recommendation.reason


def test_a_run_without_any_trial_has_a_verdict_too():
    """A report can be asked for at any time."""
    assert judged([]).status == "not_confirmed"


def test_labels_that_may_have_become_worse_are_flagged(make_trial):
    """CA1 gains .05; DG varies so much that it may have lost more than .02."""
    default = {"models.lr": 1e-3, "finetuning.mode": "decoder"}
    trials = []
    for i, noise in enumerate((-0.03, 0.03, -0.03, 0.03, -0.03, 0.03)):
        for arm, strategy, ca1, dg in (
            ("encoder", {"models.lr": 2e-3}, 0.85, 0.80 + noise),
            ("documented_default", default, 0.80, 0.80),
        ):
            record = make_trial(arm, strategy, {f"d/s{i}": ca1}, fold=i + 1)
            other = make_trial(arm, strategy, {f"d/s{i}": dg}, label="DG")
            record.ended.scores.extend(other.ended.scores)
            trials.append(record)
    (flag,) = judged(trials).flags
    assert flag.label == "DG"
    assert flag.lower == pytest.approx(-stats.t.ppf(0.975, 5) * 0.03 * (6 / 5) ** 0.5 / 6**0.5)


def test_the_result_without_fold_1_leaves_its_subjects_out(confirmation_trials):
    """Subjects that ranked all strategies are the flattering ones."""
    trials = confirmation_trials({"encoder": 0.04, "decoder": 0.01})
    found = judged(trials, fold_1=frozenset({"demo/s00", "demo/s07", "demo/s13"}))
    assert {d.n_subjects for d in found.without_fold_1} == {17}
    assert not {"demo/s00", "demo/s07"} & set(found.without_fold_1[1].of_subject)
    assert [d.between for d in found.without_fold_1][1:] == [ARMS, ARMS]


def test_the_same_scores_give_the_same_verdict(confirmation_trials):
    """Resampling is seeded; the order in which trials ended does not matter."""
    trials = confirmation_trials({"encoder": 0.02, "decoder": 0.01})
    first = json.dumps(verdict_fields(judged(trials)))
    assert json.dumps(verdict_fields(judged(trials[::-1])), sort_keys=True) == json.dumps(
        json.loads(first), sort_keys=True
    )


def test_plain_fields_are_json_without_nan(confirmation_trials):
    """One subject has no interval: null, not NaN."""
    plain = verdict_fields(
        judged(confirmation_trials({"encoder": 0.1, "decoder": 0.0}, n=1, folds=1))
    )
    text = json.dumps(plain, allow_nan=False)
    assert json.loads(text)["differences"][0]["ci95"] is None


def test_an_easy_fold_that_only_one_arm_ran_gives_it_no_advantage(make_trial):
    """The encoder is .03 worse wherever both ran; alone on an easy fold its mean is higher."""
    trials = []
    for fold, level in ((1, 0.75), (2, 0.75), (3, 0.95)):
        subjects = [f"d/s{fold}{i}" for i in range(4)]
        for k in (2, 3):
            lower = {s: level - 0.03 - 0.001 * i for i, s in enumerate(subjects)}
            trials.append(make_trial("encoder", {"models.lr": k}, lower, fold=fold))
            if fold < 3:
                same = dict.fromkeys(subjects, level)
                trials.append(make_trial("decoder", {"models.lr": k}, same, fold=fold))
    found = judged(trials)
    assert (found.status, found.arm) == ("winner", "decoder")
    assert found.recommendation.arm == "decoder"
    assert any("the 8 of 12 subjects that all have a score for" in w for w in found.warnings)


def test_trainings_that_failed_are_counted_in_the_warnings(confirmation_trials):
    """A rate that diverges every other time scores only where it went well."""
    trials = confirmation_trials({"encoder": 0.04, "decoder": 0.01})
    for number, t in enumerate(t for t in trials if t.started.arm == "encoder"):
        if t.started.seed == 43 and number < 10:
            t.ended = replace(t.ended, status="failed", scores=(), reason="the loss became nan")
    warnings = judged(trials).warnings
    assert any("5 of 10 trainings of encoder" in w and "became nan" in w for w in warnings)


def test_an_arm_that_a_third_one_beats_is_not_advised(confirmation_trials):
    """The pair is still decided, but nobody is told to tune its better half."""
    trials = confirmation_trials({"encoder": 0.04, "decoder": 0.0, "full": 0.12})
    found = judged(trials, arms=("encoder", "decoder", "full"))
    assert found.recommendation.arm == "full"
    assert found.sentence.startswith("Of the encoder and the decoder, the encoder is better")
    assert "The whole network is better than the encoder." in found.sentence
