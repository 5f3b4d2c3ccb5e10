"""Decide which subjects train, which validate, and which stay locked away.

The unit is the subject: both sides and all contrasts of a person go together. Splits
are pure functions of the subjects' names, the configuration and the seed; they don't
depend on the order of discovery, and they are written down and read back by name.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hsf_tune.config import DatasetsConfig, SearchConfig
from hsf_tune.data.cases import Case
from hsf_tune.data.parts import Parts, explicit_parts
from hsf_tune.errors import DataError

SMALLEST_TEST_SET = 12  # subjects; fewer cost labels and say nothing (14: ±0.035 Dice)


@dataclass(frozen=True)
class Split:
    """Which qualified subjects train and which validate, in one fold of one phase.

    Attributes:
        fold: from 1.
        train: may name a subject more than once (bootstrap); its cases then train as often.
        validate: empty only where everything trains.
        train_cases, validate_cases: case ids, set only where the user's own indices don't
            take whole subjects; they then count instead of the subjects.
        notes: sentences to show to the user.
    """

    phase: str
    fold: int
    train: tuple[str, ...]
    validate: tuple[str, ...]
    train_cases: tuple[str, ...] | None = None
    validate_cases: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def train_set(self, cases: Iterable[Case]) -> list[Case]:
        """The cases that train, repeats included.

        Raises:
            DataError: the split names a subject or case that is not among `cases`.
        """
        return _select(cases, self.train, self.train_cases)

    def validation_set(self, cases: Iterable[Case]) -> list[Case]:
        """The cases that validate; same errors as `train_set`."""
        return _select(cases, self.validate, self.validate_cases)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, without what is empty; `from_dict` reads it back."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value is not None and (key != "notes" or value)
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Split:
        """The inverse of `to_dict`."""
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list | tuple) else v for k, v in plain.items()
        }
        return cls(**values)


@dataclass(frozen=True)
class Splits:
    """All splits of a search: a locked test set or none, and the folds of both phases."""

    test: tuple[str, ...]
    explore: tuple[Split, ...]
    confirm: tuple[Split, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and lists, as in `dataset.json`."""
        return {
            "test": list(self.test),
            "explore": [split.to_dict() for split in self.explore],
            "confirm": [split.to_dict() for split in self.confirm],
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Splits:
        """The inverse of `to_dict`."""
        return cls(
            test=tuple(plain["test"]),
            explore=tuple(Split.from_dict(split) for split in plain["explore"]),
            confirm=tuple(Split.from_dict(split) for split in plain["confirm"]),
            notes=tuple(plain.get("notes", ())),
        )


def make_splits(
    cases: Sequence[Case], search: SearchConfig, datasets: DatasetsConfig, seed: int
) -> Splits:
    """The splits of a search.

    A test set is what the user named as such, else a `search.test_share` of the subjects
    where that is at least 12 of them, else none. The others form `search.folds`
    exploration folds and, drawn anew, `search.confirm_folds` confirmation folds
    (leave-one-out where there are fewer subjects), balanced over datasets.

    Raises:
        DataError: fewer than two subjects are left, `train_on_all` is set, or the
            explicit parts can't be used.
    """
    if datasets.train_on_all:
        raise DataError(
            "datasets.train_on_all is set, which leaves nothing to compare strategies on; a"
            " search needs subjects that validate. Remove it here; it is for a single finetuning."
        )
    notes: list[str] = []
    subjects = _subjects(cases)
    parts = explicit_parts(cases, datasets)
    if parts is not None:
        test, subjects = _named_test_set(parts, subjects, notes)
    else:
        test, subjects = _drawn_test_set(subjects, search.test_share, seed, notes)
    if len(subjects) < 2:
        raise DataError(
            f"{', '.join(subjects) or 'No subject'} is all that is left to train and validate;"
            " expected at least two subjects. Add subjects; if there are more, and one name"
            " stands for all, set datasets.datasets.<name>.subject to a regular expression."
        )
    if datasets.train_ratio != DatasetsConfig.train_ratio:
        notes.append("datasets.train_ratio does not apply: the folds say who validates.")
    folds = min(search.folds, len(subjects))
    if folds < search.folds:
        notes.append(
            f"{folds} exploration folds instead of {search.folds} (search.folds): there are"
            f" only {len(subjects)} subjects."
        )
    confirm = min(search.confirm_folds, len(subjects))
    explored = _folds("explore", subjects, folds, seed)
    return Splits(
        test=test,
        explore=explored,
        confirm=_drawn_anew(subjects, confirm, seed, explored),
        notes=tuple(notes),
    )


def finetune_split(cases: Sequence[Case], datasets: DatasetsConfig, seed: int) -> Split:
    """The one split of `finetune.py`, from the dataset's published keys.

    `train_val_test_subjects` or `train_val_test_idx` where given, else `train_ratio`,
    rounded so that at least one subject validates, two where there are five or more.
    `k_sample` subjects are then drawn from those that train, with replacement if
    `replace` (k_sample: as many as there are). With `replace` and a `train_ratio` of 1
    those that were not drawn validate. `train_on_all` trains on all but a named test part.

    Raises:
        DataError: nothing is left to train or to validate, `k_sample` is too large, or
            the explicit parts can't be used.
    """
    subjects = _subjects(cases)
    parts = explicit_parts(cases, datasets)
    if datasets.train_on_all:
        test = parts.subjects[2] if parts else ()
        train = tuple(s for s in subjects if s not in set(test))
        note = "All subjects train (datasets.train_on_all): there is no validation."
        split = Split("finetune", 1, train, (), notes=(note,))
    elif parts is not None:
        split = _split_from_parts(parts)
    else:
        if len(subjects) < 2:
            raise DataError(
                f"{', '.join(subjects) or 'No subject'} alone can't both train and validate;"
                " expected at least two subjects. Add subjects, set datasets.train_on_all=True,"
                " or, if one name stands for several, datasets.datasets.<name>.subject."
            )
        out_of_bag = datasets.replace and datasets.train_ratio == 1
        n = 0 if out_of_bag else _n_validate(len(subjects), datasets.train_ratio)
        order = _interleaved(subjects, f"{seed}/finetune")
        validate = tuple(sorted(order[:n]))
        train = tuple(s for s in subjects if s not in set(validate))
        split = Split("finetune", 1, train, validate)
    if datasets.replace or datasets.k_sample is not None:
        split = _sampled(split, datasets, seed)
    if not split.train or not (split.validate or datasets.train_on_all):
        empty = "train" if not split.train else "validate"
        raise DataError(
            f"The split leaves no subject to {empty}; expected at least one. Correct"
            " datasets.train_val_test_idx, train_val_test_subjects, train_ratio or k_sample."
        )
    return split


def named_test_set(cases: Sequence[Case], datasets: DatasetsConfig) -> tuple[str, ...]:
    """Subjects with a case in the test part that the user named; () where none is named.

    Raises:
        DataError: the explicit parts can't be used.
    """
    parts = explicit_parts(cases, datasets)
    return tuple(sorted(parts.subjects[2])) if parts else ()


def _subjects(cases: Iterable[Case]) -> list[str]:
    return sorted({case.subject for case in cases})


def _select(
    cases: Iterable[Case], subjects: Sequence[str], ids: Sequence[str] | None
) -> list[Case]:
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.subject if ids is None else case.id, []).append(case)
    wanted = subjects if ids is None else ids
    missing = sorted(set(wanted) - set(groups))
    if missing:
        raise DataError(
            f"The split names {', '.join(missing[:5])}, which the dataset does not hold"
            f" ({len(missing)} missing). Bring the files back, or make a new split."
        )
    return [case for name in wanted for case in groups[name]]


def _named_test_set(
    parts: Parts, subjects: list[str], notes: list[str]
) -> tuple[tuple[str, ...], list[str]]:
    """The user's own test part; the folds take the rest of what the user named."""
    if parts.cases is not None:
        raise DataError(
            "datasets.train_val_test_idx does not take whole subjects, but a search splits by"
            " subject. List all cases of each subject, or none; allow_subject_overlap is for"
            " a single finetuning."
        )
    train, validate, test = parts.subjects
    rest = sorted({*train, *validate}) or [s for s in subjects if s not in set(test)]
    notes.append("The named training and validation parts are joined: a search uses folds.")
    left_out = sorted(set(subjects) - set(rest) - set(test))
    if left_out:
        notes.append(f"In no part, and so not used: {', '.join(left_out)}.")
    return tuple(sorted(test)), rest


def _drawn_test_set(
    subjects: list[str], share: float, seed: int, notes: list[str]
) -> tuple[tuple[str, ...], list[str]]:
    n = math.floor(share * len(subjects) + 1e-9)
    if n < SMALLEST_TEST_SET:
        notes.append(
            f"No locked test set: {share:.0%} of {len(subjects)} subjects is fewer than"
            f" {SMALLEST_TEST_SET}."
        )
        return (), subjects
    test = set(_interleaved(subjects, f"{seed}/test")[:n])
    return tuple(sorted(test)), [s for s in subjects if s not in test]


def _folds(
    phase: str, subjects: Sequence[str], n: int, seed: int, draw: int = 0
) -> tuple[Split, ...]:
    """Deal the subjects into n folds, dataset by dataset; each fold validates once."""
    order = [
        subject
        for group in _by_dataset(subjects).values()
        for subject in _shuffled(group, f"{seed}/{phase}/{draw}")
    ]
    return tuple(
        Split(
            phase=phase,
            fold=k + 1,
            train=tuple(sorted(s for i, s in enumerate(order) if i % n != k)),
            validate=tuple(sorted(order[k::n])),
        )
        for k in range(n)
    )


def _drawn_anew(
    subjects: Sequence[str], n: int, seed: int, explored: tuple[Split, ...]
) -> tuple[Split, ...]:
    """Confirmation folds that are not the exploration's, wherever there are others."""
    known = {split.validate for split in explored}
    for draw in range(20):
        folds = _folds("confirm", subjects, n, seed, draw)
        if not known & {split.validate for split in folds}:
            return folds
    return folds


def _n_validate(n_subjects: int, train_ratio: float) -> int:
    least = 2 if n_subjects >= 5 else 1
    return min(max(round(n_subjects * (1 - train_ratio)), least), n_subjects - 1)


def _split_from_parts(parts: Parts) -> Split:
    train, validate, _ = parts.subjects
    if parts.cases is None:
        return Split("finetune", 1, train, validate)
    both = sorted(set(train) & set(validate))
    notes = (
        (
            f"{', '.join(both)}: some cases train while others validate"
            " (datasets.allow_subject_overlap); the scores flatter.",
        )
        if both
        else ()
    )
    return Split("finetune", 1, train, validate, parts.cases[0], parts.cases[1], notes)


def _sampled(split: Split, datasets: DatasetsConfig, seed: int) -> Split:
    """`k_sample` of what trains, with replacement if asked."""
    pool = split.train if split.train_cases is None else split.train_cases
    k = len(pool) if datasets.k_sample is None else datasets.k_sample
    if not pool or (k > len(pool) and not datasets.replace):
        raise DataError(
            f"datasets.k_sample is {k}, but only {len(pool)} train; expected at most that many,"
            " or datasets.replace=True to draw with replacement."
        )
    out_of_bag = not split.validate and not datasets.train_on_all
    for attempt in range(100):
        dice = random.Random(f"{seed}/sample/{attempt}")
        drawn = tuple(dice.choices(pool, k=k) if datasets.replace else dice.sample(pool, k))
        rest = tuple(sorted(set(pool) - set(drawn)))
        if rest or not out_of_bag:
            break
    values = asdict(split)
    if split.train_cases is None:
        values["train"] = drawn
        values["validate"] = rest if out_of_bag else split.validate
    else:
        values["train_cases"] = drawn
    return Split(**values)


def _by_dataset(subjects: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for subject in sorted(subjects):
        groups.setdefault(subject.split("/", 1)[0], []).append(subject)
    return groups


def _shuffled(subjects: Iterable[str], salt: str) -> list[str]:
    """A random order that only the names and the salt decide, on any machine and version."""
    return sorted(subjects, key=lambda s: hashlib.sha256(f"{salt}/{s}".encode()).digest())


def _interleaved(subjects: Iterable[str], salt: str) -> list[str]:
    """A random order of which every head holds each dataset in proportion."""
    placed = [
        ((i + 0.5) / len(group), subject)
        for group in _by_dataset(subjects).values()
        for i, subject in enumerate(_shuffled(group, salt))
    ]
    return [subject for _, subject in sorted(placed)]
