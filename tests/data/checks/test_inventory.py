"""The table of a dataset: counts by hand, volumes in mm3, outliers by a published rule."""

import numpy as np
import pytest

from hsf_tune.data.cases import Case
from hsf_tune.data.checks.facts import CaseFacts
from hsf_tune.data.checks.inventory import robust_z, tables


def _facts(volumes, spacing=(0.5, 0.5, 1.0)):
    return CaseFacts(
        shape=(20, 30, 20), spacing_mm=spacing, axes="RAS", label_axes="RAS",
        volumes_mm3=volumes, centre_mm=(0, 0, 0), image_hash="", labels_hash="", fit=(1, 0, 0, 0), remarks={},
    )  # fmt: skip


@pytest.fixture
def table(datasets_config, tmp_path):
    """Four subjects, both sides; label 2 is absent once and ten times too large once."""
    cases, facts = [], {}
    for i in range(4):
        for side in ("left", "right"):
            name = f"study--s{i}--{side}_t2"
            path = tmp_path / name
            cases.append(Case(name, "study", f"study/s{i}", f"{side}_t2", side, path, path))
            facts[name] = _facts({1: 100.0 + i, 2: 50.0 + i})
    facts["study--s0--left_t2"] = _facts({1: 100.0, 2: 0.0}, spacing=(0.4, 0.4, 2.0))
    facts["study--s1--left_t2"] = _facts({1: 100.0, 2: 500.0})
    return tables(cases, facts, datasets_config())["study"]


def test_subjects_cases_and_sizes_are_counted(table):
    assert table.subjects == ("s0", "s1", "s2", "s3")
    assert table.cases == {("left_t2", "left"): 4, ("right_t2", "right"): 4}
    assert table.spacings_mm == {(0.5, 0.5, 1.0): 7, (0.4, 0.4, 2.0): 1}
    assert table.shapes == {(20, 30, 20): 8}


def test_only_the_large_volume_is_an_outlier_and_the_absent_label_has_no_score(table):
    assert [(case, label) for case, label, _ in table.outliers()] == [("study--s1--left_t2", 2)]
    absent = table.volumes["study--s0--left_t2"][2]
    assert (absent.mm3, absent.robust_z, absent.outlier) == (0, None, False)


def test_robust_z_is_the_modified_z_score():
    """By hand: the median is 2.45, the median absolute deviation 0.15."""
    values = [2.1, 2.6, 2.4, 2.5, 2.3, 2.1, 2.3, 2.6, 8.2, 8.3]
    scores = robust_z(values)
    assert scores is not None
    assert np.allclose(scores, [0.6745 * (v - 2.45) / 0.15 for v in values])
    assert [v for v, z in zip(values, scores, strict=True) if abs(z) > 3.5] == [8.2, 8.3]


def test_volumes_that_differ_by_a_few_voxels_are_no_outliers():
    """Nearly equal volumes would have a spread of nothing."""
    scores = robust_z([100, 100, 100, 100, 100, 100, 101, 99, 104])
    assert scores is not None
    assert max(map(abs, scores)) < 1


def test_few_cases_have_no_scores():
    assert robust_z([1, 2, 3, 4, 100]) is None
