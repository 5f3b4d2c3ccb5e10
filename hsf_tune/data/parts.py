"""Read the parts that a user spells out: `train_val_test_idx` and `train_val_test_subjects`.

Indices count cases in discovery order, as published; names may be bare or qualified
(`dataset/name`). What the parts are used for is decided in `splits.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hsf_tune.config import DatasetsConfig
from hsf_tune.data.cases import Case
from hsf_tune.errors import DataError, did_you_mean

_NAMES = ("train", "validation", "test")
_BY_INDEX = "datasets.train_val_test_idx"
_BY_SUBJECT = "datasets.train_val_test_subjects"

Item = TypeVar("Item", bound=int | str)


@dataclass(frozen=True)
class Parts:
    """Three disjoint parts.

    Attributes:
        subjects: of train, validation and test, each in the order given.
        cases: ids of the same, where some subject is not in one part with all of its
            cases (then `subjects` does not say enough); else None.
    """

    subjects: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    cases: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]] | None


def explicit_parts(cases: Sequence[Case], datasets: DatasetsConfig) -> Parts | None:
    """The parts that the configuration spells out, or None where it does not.

    Raises:
        DataError: both keys are set, an index is out of range, a name is unknown or
            ambiguous, something is in two parts, or a subject's cases are parted and
            `allow_subject_overlap` is off. All such faults in one message.
    """
    by_index, by_subject = datasets.train_val_test_idx, datasets.train_val_test_subjects
    if by_index is not None and by_subject is not None:
        raise DataError(f"{_BY_INDEX} and {_BY_SUBJECT} are both set; keep one of them.")
    if by_index is not None:
        return _from_indices(cases, by_index, datasets.allow_subject_overlap)
    if by_subject is not None:
        return _from_names(cases, by_subject)
    return None


def _from_indices(
    cases: Sequence[Case], parts: Sequence[Sequence[int]], allow_overlap: bool
) -> Parts:
    faults = list(_in_two_places(_BY_INDEX, parts))
    for name, part in zip(_NAMES, parts, strict=True):
        wrong = [i for i in part if not 0 <= i < len(cases)]
        if wrong:
            faults.append(
                f"{_BY_INDEX}: the {name} part holds {wrong}, but there are {len(cases)} cases;"
                f" expected indices from 0 to {len(cases) - 1}, in discovery order."
            )
    if faults:
        raise DataError("\n".join(faults))
    ids = [tuple(cases[i].id for i in part) for part in parts]
    subjects = [tuple(dict.fromkeys(cases[i].subject for i in part)) for part in parts]
    parted = sorted(set(_repeated(name for part in subjects for name in part)))
    if parted and not allow_overlap:
        raise DataError(
            f"{_BY_INDEX} parts the cases of {', '.join(parted[:5])}: some train while others"
            " validate or test, which flatters every score. Keep all cases of a subject in one"
            " part, or set datasets.allow_subject_overlap=True."
        )
    whole = not parted and all(
        {c.id for c in cases if c.subject in set(names)} == set(part)
        for names, part in zip(subjects, ids, strict=True)
    )
    return Parts(
        (subjects[0], subjects[1], subjects[2]), None if whole else (ids[0], ids[1], ids[2])
    )


def _from_names(cases: Sequence[Case], parts: Sequence[Sequence[str]]) -> Parts:
    qualified = list(dict.fromkeys(case.subject for case in cases))
    bare: dict[str, list[str]] = {}
    for subject in qualified:
        bare.setdefault(subject.split("/", 1)[1], []).append(subject)
    faults: list[str] = []
    subjects: list[tuple[str, ...]] = []
    for part in parts:
        names: list[str] = []
        for name in part:
            found = [name] if name in qualified else bare.get(name, [])
            if not found:
                faults.append(
                    f"{_BY_SUBJECT}: there is no subject '{name}'.{did_you_mean(name, bare)}"
                )
            elif len(found) > 1:
                faults.append(
                    f"{_BY_SUBJECT}: '{name}' is a subject of several datasets; write one of"
                    f" {', '.join(found)}."
                )
            else:
                names += found
        subjects.append(tuple(names))
    faults += _in_two_places(_BY_SUBJECT, subjects)
    if faults:
        raise DataError("\n".join(faults))
    return Parts((subjects[0], subjects[1], subjects[2]), None)


def _in_two_places(key: str, parts: Sequence[Sequence[int]] | Sequence[Sequence[str]]) -> list[str]:
    twice = sorted(set(_repeated(item for part in parts for item in part)), key=str)
    if not twice:
        return []
    return [f"{key} holds {twice[:10]} more than once; expected each in one part, once."]


def _repeated(items: Iterable[Item]) -> list[Item]:
    seen: set[Item] = set()
    repeated = []
    for item in items:
        if item in seen:
            repeated.append(item)
        seen.add(item)
    return repeated
