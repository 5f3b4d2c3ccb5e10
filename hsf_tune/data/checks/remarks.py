"""Gather what is allowed but deserves a second look, one sentence for each kind.

Nothing here stops a run. A sentence says how many cases it is about and names the first
of them, so that a large study's list stays short enough to be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from hsf_tune.config import Config
from hsf_tune.data.cases import Case
from hsf_tune.data.checks.facts import CaseFacts
from hsf_tune.data.checks.inventory import LEAST_CASES, DatasetTable
from hsf_tune.data.geometry import MIRRORS

FEW_SUBJECTS = 6  # below, no verdict is possible
SIDES_APART_MM = 5.0  # a left hippocampus is some 50 mm from the right one
NAMED = 4  # cases named in a sentence
MOST_OUTLIERS = 8  # told one by one
MIRRORED_FIT, MIRRORED_SHARE = 1.7, 0.8  # the demo's and real data's labels reach 1.2 and 0.6

# Kind of oddity (see `content.py`) -> what it means. {n} cases, {what} was found.
MEANINGS = {
    "unplaced": "{n} without sform and qform ({what}): right, front and top are guessed, and"
    " left may be right. Look at the contact sheet",
    "two_places": "{n} whose sform and qform disagree ({what}); the sform is used, other programs"
    " may show the other",
    "two_spacings": "{n} whose voxel sizes differ between pixdim and affine ({what}); the affine's"
    " are used",
    "unit": "{n} whose header gives lengths in {what}; they are read as mm",
    "anisotropic": "{n} with voxels far longer in one direction ({what}); the network sees voxels,"
    " not mm",
    "odd_spacing": "{n} with unusual voxel sizes ({what})",
    "two_orientations": "{n} whose MRI and label map are stored in different orientations ({what})."
    " Their headers put both in the same place, and are believed. Look at the contact sheet",
    "mostly_one_value": "{n} that are nearly one value ({what}); is the crop in the right place?",
    "spikes": "{n} with a few extreme intensities ({what}), which squeeze all others when the"
    " image is normalised",
    "edge": "{n} whose labels reach the image's edge; the crop may cut the structure",
}


def remarks_on(
    cases: Sequence[Case],
    facts: Mapping[str, CaseFacts],
    table: Mapping[str, DatasetTable],
    config: Config,
) -> list[str]:
    """All sentences on the sound cases (those in `facts`)."""
    sound = [case for case in cases if case.id in facts]
    remarks = list(_few_subjects(sound))
    for name, dataset in table.items():
        own = [case for case in sound if case.dataset == name]
        remarks += _absent_labels(own, dataset)
        remarks += _outliers(own, dataset)
        remarks += _oddities(name, own, facts)
        remarks += _sides(name, own, facts)
        remarks += _mirrored(name, own, facts)
    remarks += _copies(sound, facts)
    if config.datasets.train_on_all:
        remarks.append("datasets.train_on_all: every subject trains, so there is no validation.")
    return remarks


def _few_subjects(cases: Sequence[Case]) -> Iterator[str]:
    n = len({case.subject for case in cases})
    if 2 <= n < FEW_SUBJECTS:
        yield (
            f"{n} subjects: below {FEW_SUBJECTS} no verdict is possible, whatever the scores;"
            " strategies are ranked all the same."
        )


def _absent_labels(cases: Sequence[Case], table: DatasetTable) -> Iterator[str]:
    for label, name in table.labels_names.items():
        without = [case for case in cases if table.volumes[case.id][label].mm3 == 0]
        if not without:
            continue
        who = f"{table.dataset}: label {label} ({name}) is in no label map"
        if len(without) == len(cases):
            yield f"{who}; the network will learn never to find it."
        else:
            subjects = sorted({case.subject.split("/", 1)[1] for case in without})
            yield (
                f"{who} of {_some(subjects)} ({len(without)} of {len(cases)} cases);"
                " they are used, and not scored for it."
            )


def _outliers(cases: Sequence[Case], table: DatasetTable) -> Iterator[str]:
    names = {case.id: case.mri.name for case in cases}
    subjects = {case.id: case.subject.split("/", 1)[1] for case in cases}
    outliers = sorted(table.outliers(), key=lambda found: -abs(found[2].robust_z or 0))
    for case, label, volume in outliers[:MOST_OUTLIERS]:
        yield (
            f"{table.dataset}: {table.labels_names[label]} of {subjects[case]} ({names[case]}) is"
            f" {volume.mm3:.0f} mm3, unusually {'large' if (volume.robust_z or 0) > 0 else 'small'}"
            f" (robust z {volume.robust_z:+.1f}). Look at the contact sheet."
        )
    if len(outliers) > MOST_OUTLIERS:
        rest = len(outliers) - MOST_OUTLIERS
        yield f"{table.dataset}: {rest} more volumes are unusual; the table marks them."


def _oddities(dataset: str, cases: Sequence[Case], facts: Mapping[str, CaseFacts]) -> Iterator[str]:
    for kind, sentence in MEANINGS.items():
        found = {c: facts[c.id].remarks[kind] for c in cases if kind in facts[c.id].remarks}
        if found:
            n = f"{len(found)} of {len(cases)} cases"
            text = sentence.format(n=n, what=_some(dict.fromkeys(found.values()), most=2))
            yield f"{dataset}: {text}: {_some(case.mri.name for case in _by_subject(found))}."


def _sides(dataset: str, cases: Sequence[Case], facts: Mapping[str, CaseFacts]) -> Iterator[str]:
    """A left hippocampus lies to the left of the same subject's right one."""
    places: dict[tuple[str, str], list[float]] = {}
    for case in cases:
        if case.side is not None:
            x_mm = facts[case.id].centre_mm[0]
            places.setdefault((case.subject, case.side), []).append(x_mm)
    wrong = []
    for subject in dict.fromkeys(case.subject for case in cases):
        left, right = places.get((subject, "left")), places.get((subject, "right"))
        if left and right and sum(left) / len(left) - sum(right) / len(right) > SIDES_APART_MM:
            wrong.append(subject.split("/", 1)[1])
    if wrong:
        yield (
            f"{dataset}: the left labels of {_some(wrong)} lie to the right of the right ones;"
            " names or headers have left and right swapped."
        )


def _mirrored(dataset: str, cases: Sequence[Case], facts: Mapping[str, CaseFacts]) -> Iterator[str]:
    """Labels that explain their images far better when they are flipped, in most of the cases.

    One case says little (a hippocampus is half symmetric); a whole dataset that was exported
    with one axis reversed shows.
    """
    if len(cases) < LEAST_CASES:
        return
    fits = np.array([facts[case.id].fit for case in cases])
    better = fits[:, 1:] / np.maximum(fits[:, :1], 1e-6)
    axis = int(np.median(better, axis=0).argmax())
    n = int(np.count_nonzero(better[:, axis] > 1))
    if np.median(better[:, axis]) > MIRRORED_FIT and n > MIRRORED_SHARE * len(cases):
        yield (
            f"{dataset}: in {n} of {len(cases)} cases the labels fit the image better when mirrored"
            f" {MIRRORS[axis]}; one of the two may have been written with that axis reversed."
            " Look at the contact sheet."
        )


def _copies(cases: Sequence[Case], facts: Mapping[str, CaseFacts]) -> Iterator[str]:
    """One image twice in a subject counts double; one label map for two images is doubtful.

    (One image in two subjects is a fault; see `study.py`.)
    """
    images = _equal(cases, {c.id: c.subject + facts[c.id].image_hash for c in cases})
    labels = _equal(cases, {c.id: facts[c.id].labels_hash for c in cases})
    for what, groups in (("image", images), ("label map", labels)):
        for same in groups[:1]:
            more = f" So do {len(groups) - 1} more groups of cases." if len(groups) > 1 else ""
            yield (
                f"{len(same)} cases have the same {what}, voxel for voxel:"
                f" {_some(case.id for case in same)}.{more}"
            )


def _equal(cases: Sequence[Case], hashes: Mapping[str, str]) -> list[list[Case]]:
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(hashes[case.id], []).append(case)
    return [group for group in groups.values() if len(group) > 1]


def _by_subject(cases: Iterable[Case]) -> list[Case]:
    """One case of each subject first, so that the named ones are spread out."""
    first: dict[str, Case] = {}
    for case in cases:
        first.setdefault(case.subject, case)
    return [*first.values(), *(case for case in cases if case not in first.values())]


def _some(words: Iterable[str], most: int = NAMED) -> str:
    listed = list(words)
    shown = ", ".join(listed[:most])
    return shown + (f" and {len(listed) - most} more" if len(listed) > most else "")
