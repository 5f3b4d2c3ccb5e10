"""The verdict on invented confirmations whose truth is known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from hsf_tune.config import VerdictConfig
from hsf_tune.verdict import gather, gather_exploration, judge, verdict_fields
from hsf_tune.verdict.coverage import Range, Scope

MARGINS = VerdictConfig()
ARMS = ("encoder", "decoder")


def judged(trials, arms=ARMS, **options):
    return judge(gather(trials), gather_exploration(trials), arms, MARGINS, **options)


def test_a_clearly_better_arm_wins(confirmation_trials):
    """.03 better with an SD of .01 and 20 subjects."""
    found = judged(confirmation_trials({"encoder": 0.04, "decoder": 0.01}))
    assert (found.status, found.arm) == ("winner", "encoder")
    assert found.sentence.startswith(
        "The best encoder recipe found beats the best decoder recipe found by 0.0"
    )
    assert found.recommendation.arm == "encoder"


def test_the_arm_claim_follows_where_it_holds_and_is_denied_where_not(confirmation_trials):
    """The same finalists after searches whose strategies differed by .005 and by .2."""
    gains = {"encoder": 0.04, "decoder": 0.01}
    general = judged(confirmation_trials(gains))
    lucky = judged(confirmation_trials(gains, spread=0.2))
    assert (general.claim, lucky.claim) == ("arm", "strategy")
    assert "so does the encoder in general (mean of finalists 0.0" in general.sentence
    assert "Whether the encoder is better in general is not shown" in lucky.sentence
    assert (lucky.status, lucky.arm) == ("winner", "encoder")


def test_the_better_arm_is_named_when_it_comes_second(confirmation_trials):
    """The sign of the difference must not decide whom the sentence praises."""
    found = judged(confirmation_trials({"encoder": 0.01, "decoder": 0.04}))
    assert (found.status, found.arm) == ("winner", "decoder")
    assert "The best decoder recipe found beats the best encoder" in found.sentence
    assert "(95 % interval 0.0" in found.sentence
    assert "so does the decoder in general (mean of finalists 0.0" in found.sentence


def test_equal_arms_with_many_subjects_are_equivalent(confirmation_trials):
    """No winner, and no talk of more subjects."""
    found = judged(confirmation_trials({"encoder": 0.02, "decoder": 0.02}, n=40, finalists=2))
    assert (found.status, found.arm) == ("equivalent", None)
    assert found.sentence.startswith("Equivalent")


def test_noise_is_undecided_and_says_how_many_subjects_would_do(confirmation_trials):
    """Eight subjects with an SD of .02 can't tell."""
    found = judged(confirmation_trials({"encoder": 0.010, "decoder": 0.0}, n=8, sd=0.02))
    assert found.status == "undecided"
    assert "subjects would decide it" in found.sentence


def test_below_six_subjects_even_the_obvious_is_undecided(confirmation_trials):
    """Five subjects, a difference of .3; a recommendation is given all the same."""
    found = judged(confirmation_trials({"encoder": 0.4, "decoder": 0.1}, n=5))
    assert found.status == "undecided"
    assert any("Only 5 subjects" in w for w in found.warnings)
    assert found.recommendation.arm == "encoder"


def test_tests_come_in_the_planned_order(confirmation_trials):
    """Default and encoder against decoder, by strategy and as arms; then the others by strategy."""
    trials = confirmation_trials({"encoder": 0.04, "decoder": 0.01, "full": 0.03, "head": 0.0})
    found = judged(trials, arms=("head", "full", "decoder", "encoder"))
    assert [(d.between, d.claim) for d in found.differences] == [
        (("encoder", "documented_default"), "strategy"),
        (("decoder", "encoder"), "strategy"),
        (("decoder", "encoder"), "arm"),
        (("head", "full"), "strategy"),
        (("head", "decoder"), "strategy"),
        (("head", "encoder"), "strategy"),
        (("full", "decoder"), "strategy"),
        (("full", "encoder"), "strategy"),
        (("encoder", "base"), "strategy"),
    ]
    assert [d.corrected for d in found.differences] == [False] * 3 + [True] * 6


def test_an_arm_with_one_finalist_or_three_tries_supports_no_arm_claim(confirmation_trials):
    """It is no mean of finalists; and what a search may end at is not known."""
    gains = {"head": 0.04, "decoder": 0.01}
    alone = judged(confirmation_trials(gains), arms=("head", "decoder"))
    trials = confirmation_trials({"encoder": 0.04, "decoder": 0.01})
    early = [t for t in trials if t.started.phase == "explore" and t.started.arm == "encoder"]
    few = judged([t for t in trials if t not in early[3:]])
    for found in (alone, few):
        assert "arm" not in {d.claim for d in found.differences}
        assert found.sentence.endswith("Of the arms in general nothing can be said.")


def test_the_arm_claim_is_by_hand_the_mean_over_finalists(confirmation_trials):
    """Mean, parts of the error, degrees of freedom and t interval, with numpy and scipy only."""
    trials = confirmation_trials({"encoder": 0.03, "decoder": 0.01}, n=10, spread=0.03)
    found = next(d for d in judged(trials).differences if d.claim == "arm")
    table = {}  # (arm, lr, subject) -> dice
    for t in trials:
        for s in t.ended.scores if t.started.phase == "confirm" else ():
            table[t.started.arm, t.started.strategy.get("models.lr"), s.subject] = s.value
    subjects = sorted({k[2] for k in table})
    cells = [table[a, lr, s] for a in ARMS for lr in (0.002, 0.003, 0.004) for s in subjects]
    cube = np.array(cells).reshape(2, 3, 10)  # (arm, finalist, subject)
    d = cube[0].mean(0) - cube[1].mean(0)
    # how the mean of the best 3 of 12 varies, against the variance of the best 6, where all are
    # normal; and the degrees of freedom that a chi-square with the latter's spread has
    normal = np.sort(np.random.default_rng(7).standard_normal((200_000, 12)), axis=1)
    half = normal[:, 6:].var(axis=1, ddof=1)
    ratio = normal[:, 9:].mean(axis=1).var() / half.mean()
    luck = ratio * np.linspace(0, 0.03, 12)[:6].var(ddof=1)
    df_luck = 2 * half.mean() ** 2 / half.var()
    plain = d.var(ddof=1) / 10
    se2 = plain + 2 * luck
    df = se2**2 / (plain**2 / 9 + 2 * luck**2 / df_luck)
    halfway = stats.t.ppf(0.975, df) * np.sqrt(se2)
    assert found.mean == pytest.approx(d.mean())
    assert found.ci95 == pytest.approx((d.mean() - halfway, d.mean() + halfway), rel=0.02)
    t_p = 2 * stats.t.sf(abs(d.mean()) / np.sqrt(se2), df)
    assert found.p_value == pytest.approx(t_p, rel=0.1)


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


def test_a_base_that_scores_best_is_recommended(confirmation_trials):
    """No finetuning, rather than the least bad one; whatever the two arms are among themselves."""
    found = judged(confirmation_trials({"encoder": 0.03, "decoder": 0.0}, base=0.1))
    assert (found.recommendation.arm, found.recommendation.strategy) == ("base", {})
    assert found.recommendation.reason.startswith("Don't finetune. The unchanged base model has")
    assert found.sentence.startswith("Don't finetune: nothing tried is reliably better")
    assert found.recommendation.level == found.baselines["base"]
    assert (found.status, found.arm) == ("winner", "encoder")


def test_a_base_that_nothing_reliably_beats_is_recommended_before_a_worse_default(
    confirmation_trials,
):
    """.001 above a base that is .05 above the default."""
    found = judged(confirmation_trials({"encoder": 0.051, "decoder": 0.0}, base=0.05, sd=0.02))
    assert found.recommendation.arm == "base"
    assert "not reliably better than the unchanged base model" in found.recommendation.reason


def test_one_number_for_a_strategy_and_what_its_pick_flatters_it_by(confirmation_trials):
    """The recommended strategy's own Dice, not its arm's; picked from six."""
    found = judged(confirmation_trials({"encoder": 0.04, "decoder": 0.03}))
    chosen = found.recommendation
    assert chosen.level.mean == pytest.approx(found.winner.mean)
    assert chosen.level.mean > found.arms[chosen.arm].mean
    assert chosen.candidates == 6
    assert "Being the best of 6 on these subjects flatters it, by about 0.00" in chosen.reason


def test_a_failed_subject_is_named_with_the_result_without_it(confirmation_trials):
    """It lost .3 under the encoder only, which leaves the rest undecided until it is looked at."""
    trials = confirmation_trials({"encoder": 0.04, "decoder": 0.01})
    for t in trials:
        if t.started.arm == "encoder" and t.started.phase == "confirm":
            t.ended.scores[:] = [
                s._replace(value=s.value - 0.3 * (s.subject == "demo/s04")) for s in t.ended.scores
            ]
    found = judged(trials)
    tested = next(d for d in found.differences if d.between == ARMS)
    assert found.status == "undecided"
    assert tested.outlier.subject == "demo/s04"
    others = [v for subject, v in tested.of_subject.items() if subject != "demo/s04"]
    assert tested.outlier.mean == pytest.approx(np.mean(others))
    assert tested.outlier.ci95[0] > 0.005
    assert any("demo/s04 makes up more than half" in w and "+0.0" in w for w in found.warnings)


def test_arms_tried_at_different_rates_are_not_compared(confirmation_trials):
    """The encoder never went beyond .0024, `decoder` was tried up to .028: no winner either way."""
    trials = confirmation_trials({"encoder": 0.01, "decoder": 0.04})
    ranges = {arm: {"models.lr": Range(1e-4, 0.1)} for arm in ARMS}
    rates = {"encoder": (2e-4, 2.4e-3), "decoder": (2e-3, 2.8e-2)}
    tried = {arm: [{"models.lr": lr} for lr in ends] for arm, ends in rates.items()}
    found = judged(trials, scope=Scope(ranges, tried))
    assert (found.status, found.arm, found.claim) == ("not_comparable", None, "strategy")
    assert found.sentence.startswith("Not comparable yet: the encoder and the decoder were hardly")
    assert "models.lr 0.0002 to 0.0024 and 0.002 to 0.028" in found.sentence
    assert {d.better for d in found.differences if d.between == ARMS} == {None}
    assert found.recommendation.arm == "decoder"
    rates, edges, learning = verdict_fields(found)["checks"]["encoder"]
    assert (rates["passed"], edges["passed"], learning["passed"]) == (False, True, None)
    assert rates["text"] == "models.lr 0.0002 to 0.0024; 4 % shared with decoder"


def test_one_arm_is_compared_with_the_default_only(confirmation_trials):
    """A space with one arm answers a smaller question."""
    found = judged(confirmation_trials({"encoder": 0.04}), arms=("encoder",))
    assert (found.status, found.arm) == ("single_arm", None)
    assert "The best encoder recipe found against the documented default: better" in found.sentence


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
    trials = confirmation_trials({"encoder": 0.04, "decoder": 0.01}, folds=5, seeds=(42, 43))
    confirmed = (t for t in trials if t.started.arm == "encoder" and t.started.phase == "confirm")
    for number, t in enumerate(confirmed):
        if t.started.seed == 43 and number < 10:
            t.ended = replace(t.ended, status="failed", scores=(), reason="the loss became nan")
    warnings = judged(trials).warnings
    assert any("5 of 10 trainings of encoder" in w and "became nan" in w for w in warnings)


def test_an_arm_that_a_third_one_beats_is_not_advised(confirmation_trials):
    """The pair is still decided, but what beats its better half is said."""
    trials = confirmation_trials({"encoder": 0.04, "decoder": 0.0, "full": 0.12})
    found = judged(trials, arms=("encoder", "decoder", "full"))
    assert found.recommendation.arm == "full"
    assert found.sentence.startswith("The best encoder recipe found beats the best decoder")
    assert "The best whole-network recipe found beats the best encoder recipe found." in (
        found.sentence
    )
