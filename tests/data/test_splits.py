from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsf_tune.config import DatasetsConfig, SearchConfig
from hsf_tune.data.cases import Case
from hsf_tune.data.splits import Split, Splits, finetune_split, make_splits
from hsf_tune.errors import DataError


def cases_of(subjects, per_subject=2):
    """Cases in discovery order: pattern by pattern, so that a subject's cases lie apart."""
    return [
        Case(
            id=f"{s.replace('/', '--')}--p{p}",
            dataset=s.split("/")[0],
            subject=s,
            pattern=f"p{p}",
            side=None,
            mri=Path(f"{s}/{p}.nii.gz"),
            label=Path(f"{s}/{p}_seg.nii.gz"),
        )
        for p in range(per_subject)
        for s in subjects
    ]


def names(n, dataset="a"):
    return [f"{dataset}/sub-{i:02d}" for i in range(n)]


def datasets(**keys):
    return DatasetsConfig(main_path=".", datasets={}, **keys)


@settings(max_examples=1000, deadline=None)
@given(
    counts=st.lists(st.integers(1, 80), min_size=1, max_size=3).filter(lambda c: sum(c) > 1),
    seed=st.integers(0, 2**31 - 1),
    folds=st.integers(2, 6),
    share=st.sampled_from([0.0, 0.2, 0.5]),
)
def test_no_subject_is_ever_in_two_splits_and_each_validates_once(counts, seed, folds, share):
    """Over random datasets: folds partition what is not locked away, in both phases."""
    subjects = [s for k, n in enumerate(counts) for s in names(n, f"d{k}")]
    search = SearchConfig(folds=folds, keep=[1] * (folds - 1), test_share=share)
    splits = make_splits(cases_of(subjects, 1), search, datasets(), seed)
    pool = sorted(set(subjects) - set(splits.test))
    for phase in (splits.explore, splits.confirm):
        assert sorted(s for split in phase for s in split.validate) == pool
        for split in phase:
            assert set(split.train).isdisjoint(split.validate)
            assert sorted(split.train + split.validate) == pool
            assert split.train
        sizes = [len(split.validate) for split in phase]
        assert max(sizes) - min(sizes) <= 1
        for k in range(len(counts)):  # balanced over datasets
            held = [sum(s.startswith(f"d{k}/") for s in split.validate) for split in phase]
            assert max(held) - min(held) <= 1


@pytest.mark.parametrize(
    ("n", "n_test"), [(2, 0), (59, 0), (60, 12), (64, 12), (65, 13), (100, 20)]
)
def test_a_test_set_is_locked_from_60_subjects_on(n, n_test):
    splits = make_splits(cases_of(names(n)), SearchConfig(), datasets(), 0)
    assert len(splits.test) == n_test
    assert any("No locked test set" in note for note in splits.notes) == (n_test == 0)


def test_the_test_set_holds_each_dataset_in_proportion():
    subjects = names(60, "a") + names(30, "b")
    splits = make_splits(cases_of(subjects), SearchConfig(), datasets(), 3)
    assert sum(s.startswith("a/") for s in splits.test) == 12
    assert sum(s.startswith("b/") for s in splits.test) == 6


@pytest.mark.parametrize(
    ("n", "explore", "confirm"),
    [(2, 2, 2), (3, 3, 3), (7, 4, 7), (9, 4, 9), (12, 4, 10), (40, 4, 10)],
)
def test_folds_shrink_with_the_dataset_and_say_so(n, explore, confirm):
    splits = make_splits(cases_of(names(n)), SearchConfig(), datasets(), 1)
    assert (len(splits.explore), len(splits.confirm)) == (explore, confirm)
    assert [split.fold for split in splits.confirm] == list(range(1, confirm + 1))
    assert any("exploration folds instead of 4" in note for note in splits.notes) == (n < 4)


def test_confirmation_folds_are_drawn_anew():
    """With as many folds as the exploration, no fold is the same."""
    search = SearchConfig(confirm_folds=4)
    for seed in range(20):
        splits = make_splits(cases_of(names(9)), search, datasets(), seed)
        known = {split.validate for split in splits.explore}
        assert not known & {split.validate for split in splits.confirm}


def test_splits_depend_on_names_and_seed_only_not_on_discovery_order():
    cases = cases_of(names(12))
    first = make_splits(cases, SearchConfig(), datasets(), 7)
    assert make_splits(cases[::-1], SearchConfig(), datasets(), 7) == first
    assert make_splits(cases, SearchConfig(), datasets(), 8) != first


def test_splits_are_read_back_as_they_were_written():
    splits = make_splits(cases_of(names(70)), SearchConfig(), datasets(), 7)
    assert Splits.from_dict(splits.to_dict()) == splits
    split = finetune_split(
        cases_of(names(2)),
        datasets(train_val_test_idx=([0, 2], [1, 3], []), allow_subject_overlap=True),
        0,
    )
    assert Split.from_dict(split.to_dict()) == split


def test_a_split_hands_out_all_cases_of_its_subjects_and_repeats_them():
    cases = cases_of(names(3))
    split = Split("finetune", 1, ("a/sub-02", "a/sub-00", "a/sub-02"), ("a/sub-01",))
    assert [case.id for case in split.train_set(cases)] == [
        f"a--sub-{s}--p{p}" for s in ("02", "00", "02") for p in (0, 1)
    ]
    assert {case.subject for case in split.validation_set(cases)} == {"a/sub-01"}


def test_a_split_of_another_dataset_names_whom_it_misses():
    split = Split("explore", 1, ("a/sub-00", "a/gone"), ("a/sub-01",))
    with pytest.raises(DataError, match="a/gone"):
        split.train_set(cases_of(names(2)))


def test_one_subject_can_not_be_split():
    one = cases_of(names(1), 4)
    for split in (
        lambda: make_splits(one, SearchConfig(), datasets(), 0),
        lambda: finetune_split(one, datasets(), 0),
    ):
        with pytest.raises(DataError, match=r"a/sub-00.*at least two subjects"):
            split()


def test_a_search_refuses_to_train_on_all():
    with pytest.raises(DataError, match="train_on_all"):
        make_splits(cases_of(names(5)), SearchConfig(), datasets(train_on_all=True), 0)


def test_a_search_honours_a_named_test_part_and_leaves_out_who_is_in_none():
    keys = {"train_val_test_subjects": (["sub-00", "sub-01"], ["sub-02"], ["sub-04"])}
    splits = make_splits(cases_of(names(5)), SearchConfig(), datasets(**keys), 0)
    assert splits.test == ("a/sub-04",)
    assert {s for split in splits.explore for s in split.validate} == set(names(3))
    assert any("a/sub-03" in note for note in splits.notes)
    only_test = datasets(train_val_test_idx=([], [], [0, 5]))
    splits = make_splits(cases_of(names(5)), SearchConfig(), only_test, 0)
    assert splits.test == ("a/sub-00",)
    assert {s for split in splits.explore for s in split.validate} == set(names(5)[1:])


@pytest.mark.parametrize(
    ("n", "ratio", "validating"),
    [(2, 0.8, 1), (4, 0.9, 1), (5, 0.9, 2), (10, 0.9, 2), (10, 0.5, 5), (30, 0.9, 3), (3, 0.01, 2)],
)
def test_train_ratio_is_rounded_so_that_enough_subjects_validate(n, ratio, validating):
    split = finetune_split(cases_of(names(n)), datasets(train_ratio=ratio), 0)
    assert len(split.validate) == validating
    assert sorted(split.train + split.validate) == names(n)


def test_indices_count_cases_in_discovery_order():
    cases = cases_of(names(4))
    keys = datasets(train_val_test_idx=([5, 0, 1, 4], [2, 6], [3, 7]))
    split = finetune_split(cases, keys, 0)
    assert split.train == ("a/sub-01", "a/sub-00")
    assert split.validate == ("a/sub-02",)
    assert split.train_cases is None


def test_indices_that_part_a_subject_are_refused_unless_asked_for():
    cases, parts = cases_of(names(2)), ([0, 1], [2], [])
    with pytest.raises(DataError, match=r"a/sub-00.*allow_subject_overlap"):
        finetune_split(cases, datasets(train_val_test_idx=parts), 0)
    keys = datasets(train_val_test_idx=parts, allow_subject_overlap=True)
    split = finetune_split(cases, keys, 0)
    assert [case.id for case in split.train_set(cases)] == ["a--sub-00--p0", "a--sub-01--p0"]
    assert [case.id for case in split.validation_set(cases)] == ["a--sub-00--p1"]
    assert "a/sub-00" in split.notes[0]
    with pytest.raises(DataError, match="by subject"):
        make_splits(cases, SearchConfig(), keys, 0)


def test_indices_that_leave_out_a_case_train_without_it():
    cases = cases_of(names(2))
    split = finetune_split(cases, datasets(train_val_test_idx=([0], [1, 3], [])), 0)
    assert [case.id for case in split.train_set(cases)] == ["a--sub-00--p0"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"train_val_test_idx": ([0, 9], [1], [])}, r"train.*\[9\].*0 to 5"),
        ({"train_val_test_idx": ([0, -1], [1], [])}, r"\[-1\]"),
        ({"train_val_test_idx": ([0, 3], [0], [])}, r"\[0\] more than once"),
        ({"train_val_test_idx": ([0, 3], [], [])}, "no subject to validate"),
        ({"train_val_test_idx": ([], [0, 3], [])}, "no subject to train"),
        ({"train_val_test_subjects": (["sub-00"], ["sub-9"], [])}, "'sub-9'.*Did you mean"),
        ({"train_val_test_subjects": (["sub-00"], ["a/sub-00"], [])}, "more than once"),
        (
            {
                "train_val_test_subjects": ([], [], []),
                "train_val_test_idx": ([], [], []),
            },
            "both set",
        ),
        ({"k_sample": 9}, r"k_sample is 9.*only 2 train"),
    ],
)
def test_parts_that_can_not_be_used_are_refused(keys, words):
    with pytest.raises(DataError, match=words):
        finetune_split(cases_of(names(3)), datasets(**keys), 0)


def test_a_bare_name_that_two_datasets_share_must_be_qualified():
    cases = cases_of([*names(2, "a"), *names(2, "b")])
    parts = (["sub-00"], ["a/sub-01"], [])
    with pytest.raises(DataError, match="a/sub-00, b/sub-00"):
        finetune_split(cases, datasets(train_val_test_subjects=parts), 0)


def test_bootstrap_draws_subjects_that_train_and_never_those_that_validate():
    cases = cases_of(names(10))
    plain = finetune_split(cases, datasets(), 5)
    drawn = finetune_split(cases, datasets(replace=True), 5)
    assert drawn.validate == plain.validate
    assert len(drawn.train) == len(plain.train)
    assert len(set(drawn.train)) < len(drawn.train)
    assert set(drawn.train) < set(plain.train)
    assert len(finetune_split(cases, datasets(replace=True, k_sample=50), 5).train) == 50
    few = finetune_split(cases, datasets(k_sample=3), 5)
    assert len(set(few.train)) == 3
    assert set(few.train) < set(plain.train)


def test_out_of_bag_subjects_validate_when_all_are_drawn_from():
    """The published meaning of replace=True with train_ratio=1."""
    split = finetune_split(cases_of(names(10)), datasets(replace=True, train_ratio=1.0), 5)
    assert split.validate
    assert set(split.validate) == set(names(10)) - set(split.train)


def test_train_on_all_leaves_no_validation_and_says_so():
    split = finetune_split(cases_of(names(4)), datasets(train_on_all=True), 0)
    assert split.train == tuple(names(4))
    assert split.validate == ()
    assert "no validation" in split.notes[0]
