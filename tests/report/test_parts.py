"""Numbers and choices behind single parts of the report."""

import math
from dataclasses import replace

import numpy as np
import pytest

from hsf_tune.figures.palette import ARM_COLORS
from hsf_tune.records import EpochEnded, TrialRecord, TrialStarted
from hsf_tune.report import read_run
from hsf_tune.report.curves import mean_curves, unsettled
from hsf_tune.report.exploration import pareto_front, strategies_figure
from hsf_tune.report.pictures import differences_picture
from hsf_tune.report.review import contradictions
from hsf_tune.report.tables import checks_table, interval, number
from hsf_tune.report.volumes import absolute_agreement, agreements
from hsf_tune.search.importance import parameter_importance

STRATEGY = {"finetuning.mode": "decoder", "finetuning.depth": 2, "models.lr": 1e-3,
            "finetuning.unfreeze_frequency": 4, "lightning.max_epochs": 12}  # fmt: skip


def trained(losses, openings):
    """A trial with this training loss and these openings."""
    started = TrialStarted("t", "confirm", "decoder", STRATEGY, 1, 42, len(losses), (), (),
                           opening_epochs={"final_conv": 0, **openings})  # fmt: skip
    epochs = {e: EpochEnded("t", e, {"train_loss": x}) for e, x in enumerate(losses)}
    return TrialRecord(started, epochs)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0, 0.6, 0.5, 0.495, 0.4, 0.3, 0.29, 0.289], []),  # 1 % an epoch before each
        ([1.0, 0.8, 0.6, 0.4, 0.3, 0.29, 0.29, 0.29], ["block 1 opened"]),  # a third
        ([1.0, 0.6, 0.5, 0.499, 0.4, 0.35, 0.3, 0.25], ["block 2 opened"]),  # a sixth
        ([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], ["blocks 1, 2 opened"]),
    ],
)
def test_a_loss_that_still_falls_before_an_opening_is_said(losses, expected):
    """Blocks open at epochs 4 and 8; by hand from the last two losses of each stage."""
    found = unsettled(mean_curves("decoder", STRATEGY, [trained(losses, {"d2": 4, "d1": 8})]))
    assert len(found) == len(expected)
    for sentence, words in zip(found, expected, strict=True):
        assert words in sentence
        assert "larger than 4" in sentence


def test_a_stage_of_one_epoch_is_not_judged():
    """Nothing can settle in it, and nothing could be compared."""
    curves = mean_curves("decoder", STRATEGY, [trained([1.0, 0.5, 0.25], {"d2": 1, "d1": 2})])
    assert unsettled(curves) is None


def test_curves_average_the_trainings_that_have_an_epoch():
    """One training stopped early."""
    found = mean_curves("decoder", STRATEGY, [trained([1.0, 0.5], {}), trained([0.8], {})])
    assert found.metrics["train_loss"] == pytest.approx([0.9, 0.5])
    assert np.isnan(found.metrics["val_loss"]).all()


def test_pareto_front_keeps_what_nothing_cheaper_reaches():
    """By eye: (2, .5) is dearer and worse than (1, .6)."""
    points = [(3, 0.9), (1, 0.6), (2, 0.5), (3, 0.8), (4, 0.9)]
    assert pareto_front(points) == [(1, 0.6), (3, 0.9)]


def test_icc_is_that_of_shrout_and_fleiss():
    """Their six subjects and four judges (1979, table 2): ICC(2,1) = .29, interval .02 to .76."""
    ratings = np.array(
        [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]],
        dtype=float,
    )
    icc, (low, high) = absolute_agreement(ratings)
    assert icc == pytest.approx(0.2898, abs=1e-4)
    assert (low, high) == pytest.approx((0.0188, 0.7611), abs=1e-3)


def test_icc_punishes_a_constant_bias():
    """Absolute agreement: the same volumes plus 100 do not agree."""
    manual = np.array([300.0, 320.0, 340.0, 360.0])
    exact, _ = absolute_agreement(np.column_stack([manual, manual]))
    shifted, _ = absolute_agreement(np.column_stack([manual + 100, manual]))
    assert exact == pytest.approx(1.0)
    assert shifted < 0.2
    assert math.isnan(absolute_agreement(np.ones((2, 2)))[0])


def test_bland_altman_is_over_subjects_not_cases(finished_run):
    """Recomputed from the scores by hand for one label."""
    run = read_run(finished_run)
    trials = run.trials_of(run.verdict.recommendation.strategy, "confirm")
    found = next(a for a in agreements(trials) if a.label == "CA1")
    sums = {}
    for t in trials:
        for s in t.ended.scores:
            if s.label == "CA1" and s.metric in ("volume_mm3", "reference_volume_mm3"):
                sums.setdefault((s.subject, s.case, s.metric), []).append(s.value)
    by_subject = {}
    for (subject, _, metric), values in sums.items():
        sign = 1 if metric == "volume_mm3" else -1
        by_subject[subject] = by_subject.get(subject, 0) + sign * np.mean(values) / 2
    differences = np.array(list(by_subject.values()))
    assert found.bias == pytest.approx(differences.mean())
    half = 1.96 * differences.std(ddof=1)
    assert found.limits == pytest.approx((found.bias - half, found.bias + half))


def test_only_agreement_far_from_the_manual_border_is_a_contradiction():
    """A label drawn one voxel larger is a border; a block elsewhere is a finding."""
    manual = np.zeros((12, 12, 12), dtype=np.uint8)
    manual[2:5, 2:5, 2:5] = 1
    agreed = np.zeros_like(manual)
    agreed[2:6, 2:5, 2:5] = 1  # a voxel larger
    agreed[8:10, 8:10, 8:10] = 2  # not drawn at all
    known = np.ones_like(manual, dtype=bool)
    found = contradictions(agreed, known, manual)
    assert np.count_nonzero(found) == 8
    assert (found[8:10, 8:10, 8:10] == 2).all()
    known[8] = False  # there one finalist sees something else
    assert np.count_nonzero(contradictions(agreed, known, manual)) == 4


def test_importance_finds_the_parameter_that_decides():
    """Dice depends on the rate alone."""
    rng = np.random.default_rng(0)
    rates, depths = 10 ** rng.uniform(-4, -2, 30), rng.integers(1, 5, 30)
    scored = [
        (
            {"models.lr": float(lr), "finetuning.depth": int(depth), "same": 1},
            -abs(np.log10(lr) + 3),
        )
        for lr, depth in zip(rates, depths, strict=True)
    ]
    found = parameter_importance(scored)
    assert set(found) == {"models.lr", "finetuning.depth"}
    assert found["models.lr"] > 0.8
    assert sum(found.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("count", [0, 3])
def test_importance_of_few_strategies_is_not_told(count):
    """Three points fit anything."""
    assert parameter_importance([({"lr": 10.0**-i}, 0.1 * i) for i in range(count)]) == {}


def test_missing_numbers_are_dashes():
    """Never `nan` in front of a reader."""
    assert number(float("nan")) == "–"
    assert number(None) == "–"
    assert interval((math.nan, 1.0)) == "–"
    assert number(-0.01234, 3, sign=True) == "−0.012"


def test_parallel_coordinates_carry_the_arms_colours(explored_run):
    """A colour bar names the arms in their own colours; a rate's ticks are round and in range."""
    figure = strategies_figure(read_run(explored_run))
    (lines,) = figure.data
    assert list(lines.line.colorbar.ticktext) == ["encoder", "decoder", "full", "head"]
    assert {color for _, color in lines.line.colorscale} == set(ARM_COLORS.values())
    axes = {axis.label: axis for axis in lines.dimensions}
    assert set(axes) == {"depth", "unfreeze_frequency", "learning rate", "Dice, fold 1"}
    assert {"0.001", "0.003", "0.01"} <= set(axes["learning rate"].ticktext)
    assert list(axes["unfreeze_frequency"].ticktext) == ["1", "2", "4", "none"]


def test_margins_stay_visible_beside_large_differences(finished_run):
    """Where an arm is better by 40 margins, the axis is compressed and says so."""
    run = read_run(finished_run)
    (usual,) = differences_picture(run).axes
    assert usual.get_xscale() == "linear"
    large = tuple(replace(d, ci95=(0.30, 0.50)) for d in run.verdict.differences)
    wide = read_run(finished_run)
    wide.__dict__["verdict"] = replace(run.verdict, differences=large)
    (axes,) = differences_picture(wide).axes
    assert axes.get_xscale() == "symlog"
    assert "logarithmic" in axes.get_xlabel()
    margin = run.config.verdict.superior
    to_pixels = axes.transData.transform
    assert to_pixels((margin, 0))[0] - to_pixels((-margin, 0))[0] > 20


def test_checks_of_the_search_are_a_row_an_arm():
    """What is doubted is said, and its row stressed."""
    names = ("tried at the rates of the other arms", "not at an edge", "had stopped improving")
    texts = ("0.0001 to 0.01", "inside", "3 finalists")
    doubts = (
        "0.0001 to 0.01, little of it shared with encoder",
        "at the edge: 0.028 in 0.0001 to 0.03",
        "2 of 3 gained in the last quarter",
    )
    well = [{"check": n, "passed": True, "text": t} for n, t in zip(names, texts, strict=True)]
    bad = [{"check": n, "passed": False, "text": t} for n, t in zip(names, doubts, strict=True)]
    unknown = [{"check": n, "passed": None, "text": "not known"} for n in names]
    table = checks_table({"encoder": well, "full": bad, "head": unknown})
    first, second, third = table.rows
    assert first == ("encoder", "✓ 0.0001 to 0.01", "✓ inside", "✓ 3 finalists")
    assert second[1] == "✗ 0.0001 to 0.01, little of it shared with encoder"
    assert second[2] == "✗ at the edge: 0.028 in 0.0001 to 0.03"
    assert second[3] == "✗ 2 of 3 gained in the last quarter"
    assert third[1:] == ("– not known",) * 3
    assert (table.strong, table.stress) == (frozenset({1}), "flagged")
