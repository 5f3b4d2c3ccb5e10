"""Examine one case: what its MRI and its label map hold, and whether they fit together.

One case in, its faults and its facts out; nothing is compared between cases (`study.py`
does that) and nothing is changed or kept in memory.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hsf_tune.data.cases import Case, Fault
from hsf_tune.data.checks.facts import NOT_WHOLE, CaseFacts, Values, facts_of
from hsf_tune.data.geometry import LARGEST_MISALIGNMENT, grid_fault, offset_in_voxels
from hsf_tune.data.rawfile import BadFile, RawImage, claimed_voxels, read_raw
from hsf_tune.data.reading import LEAST_DEVIATION
from hsf_tune.wording import listed

MOST_LABELS = 100  # more different values in a crop are no label map
MOST_LABELS_IF_SURE = 32  # fewer, all whole, and half of the voxels equal: no MRI
LARGE_VOXELS = 2**24  # a case of more is examined alone, so that memory stays bounded

_one_large_case = threading.Lock()


@dataclass(frozen=True)
class Examined:
    """A case with what is wrong with it; facts only where nothing is."""

    case: Case
    faults: tuple[Fault, ...]
    facts: CaseFacts | None


class LabelRules(NamedTuple):
    """What the configuration says about a dataset's label maps.

    Attributes:
        key: the configuration key of `mapping`, for messages.
        mapping: value in the file -> label, 0 to drop it.
        n_labels: N.
        least_side: voxels that the network needs along each axis.
    """

    key: str
    mapping: Mapping[int, int]
    n_labels: int
    least_side: int


def examine(case: Case, rules: LabelRules) -> Examined:
    """Read both files of a case and find all that is wrong with them.

    Threads may call this side by side.
    """
    claimed = claimed_voxels(case.mri) + claimed_voxels(case.label)
    with _one_large_case if claimed > LARGE_VOXELS else nullcontext():
        return _examine(case, rules)


def sound_image(path: Path, least_side: int) -> RawImage:
    """Read an image that is to be segmented, by the rules for those that train.

    Args:
        least_side: voxels that the network needs along each axis.

    Raises:
        BadFile: with all that is wrong with it.
    """
    image = read_raw(path)
    faults: list[Fault] = []
    with np.errstate(all="ignore"):
        values = _values(image, "intensities", faults)
        if values is not None:
            faults += _image_faults(image, values, least_side)
    if faults:
        raise BadFile(*faults)
    return image


def _examine(case: Case, rules: LabelRules) -> Examined:
    faults: list[Fault] = []
    mri = _read(case.mri, faults)
    label = _read(case.label, faults)
    image_values = _values(mri, "intensities", faults)
    label_values = _values(label, "labels", faults)
    if mri is not None and image_values is not None:
        faults += _image_faults(mri, image_values, rules.least_side)
    if label is not None and label_values is not None:
        faults += _label_faults(label, label_values, rules)
    if image_values is not None and label_values is not None:
        faults = _swapped(case, image_values, label_values) or faults
    if mri is not None and label is not None:
        faults += _pair_faults(mri, label)
    if faults or mri is None or label is None or image_values is None:
        return Examined(case, tuple(faults), None)
    mapping, n_labels = rules.mapping, rules.n_labels
    return Examined(case, (), facts_of(mri, label, image_values, mapping, n_labels))


def _read(path: Any, faults: list[Fault]) -> RawImage | None:
    try:
        return read_raw(path)
    except BadFile as bad:
        faults.extend(bad.faults)
        return None


def _values(image: RawImage | None, what: str, faults: list[Fault]) -> Values | None:
    """The different values; a fault instead where some are no numbers."""
    if image is None:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        bad = int(np.count_nonzero(~np.isfinite(image.values.astype(np.float32))))
    if bad:
        nan = int(np.count_nonzero(np.isnan(image.values)))
        kinds = f"{nan:,} NaN and {bad - nan:,} infinite" if nan and nan < bad else (
            f"{bad:,} {'NaN' if nan else 'infinite'}"
        )  # fmt: skip
        found = f"holds {kinds} {'voxel' if bad == 1 else 'voxels'} of {image.values.size:,}"
        todo = "Repair the image (fslmaths -nan sets NaN to 0), or leave it out."
        faults.append(Fault(str(image.path), found, f"finite {what}", todo))
        return None
    return Values(*np.unique(image.values, return_counts=True))


def _image_faults(mri: RawImage, values: Values, least_side: int) -> Iterator[Fault]:
    where = str(mri.path)
    if len(values.numbers) == 1:
        found = f"is constant: every voxel is {values.numbers[0]:g}"
        yield Fault(where, found, "an MRI", "Replace the image, or leave it out.")
    elif values.deviation <= LEAST_DEVIATION:
        found = (
            f"varies by {np.ptp(values.numbers):g} only, which single precision can't tell apart"
        )
        yield Fault(where, found, "an MRI", "Export it again with larger numbers, or leave it out.")
    elif _looks_like_labels(values):
        found = f"looks like a label map: it holds only the values {listed(values.numbers)}"
        todo = "Correct the patterns, so that mri matches the image."
        yield Fault(where, found, "an MRI", todo)
    if min(mri.values.shape) < least_side:
        yield Fault(
            where,
            f"is too small for the network: {_times(mri.values.shape)} voxels",
            f"at least {least_side} along each axis, which the network halves to one voxel",
            "Crop it more generously, or leave it out.",
        )


def _label_faults(label: RawImage, values: Values, rules: LabelRules) -> Iterator[Fault]:
    where = str(label.path)
    if _looks_like_mri(values):
        found = f"looks like an MRI: it holds {len(values.numbers):,} different values"
        todo = "Correct the patterns, so that label matches the label map."
        yield Fault(where, found, "a label map", todo)
        return
    whole = np.rint(values.numbers)
    fractions = np.abs(values.numbers - whole) > NOT_WHOLE
    if fractions.any():
        yield Fault(
            where,
            f"holds values that are no whole numbers: {listed(values.numbers[fractions])}",
            "label numbers",
            "Take the label map, not a probability map; resample it with nearest neighbours.",
        )
        return
    known = {0: 0, **rules.mapping}
    strange = {int(v): int(n) for v, n in zip(whole, values.counts, strict=True) if v not in known}
    if strange:
        yield _unmapped(where, strange, rules)
    elif not any(known[int(v)] for v in whole):
        dropped = f"only {listed(whole)}, which {rules.key} drops" if whole.any() else "only zeros"
        todo = "Replace the label map, or leave the case out (make the mri pattern miss it)."
        yield Fault(where, f"is empty: it holds {dropped}", "at least one labelled voxel", todo)


def _unmapped(where: str, strange: Mapping[int, int], rules: LabelRules) -> Fault:
    counted = [f"{value} ({n:,} voxel{'s' if n > 1 else ''})" for value, n in strange.items()]
    first, s = next(iter(strange)), "s" if len(strange) > 1 else ""
    return Fault(
        where,
        f"holds label{s} {', '.join(counted)}, which {rules.key} does not map",
        f"0 and {listed(sorted(rules.mapping))}",
        f'Add "{first}: 0" to drop it, or map it to a subfield'
        + (f"; likewise the {len(strange) - 1} others." if len(strange) > 1 else "."),
    )


def _looks_like_mri(values: Values) -> bool:
    return len(values.numbers) > MOST_LABELS and (values.whole or values.largest_share < 0.5)


def _looks_like_labels(values: Values) -> bool:
    few = 1 < len(values.numbers) <= MOST_LABELS_IF_SURE
    return few and values.whole and values.largest_share > 0.5


def _swapped(case: Case, image: Values, label: Values) -> list[Fault]:
    if not (_looks_like_labels(image) and _looks_like_mri(label)):
        return []
    found = (
        f"is taken for the MRI but holds only {len(image.numbers)} values, and its label map"
        f" {case.label.name} holds {len(label.numbers):,}: the two look swapped"
    )
    todo = "Swap the patterns mri and label."
    return [Fault(str(case.mri), found, "an MRI and its label map", todo)]


def _pair_faults(mri: RawImage, label: RawImage) -> Iterator[Fault]:
    shape, other = mri.values.shape, label.values.shape
    name = f"its MRI {mri.path.name}"
    fault = grid_fault(label.path, name, mri.affine, shape, label.affine, other)
    if fault is None:
        return
    found = fault.found
    for image, name in ((mri, "its MRI"), (label, "the label map")):
        if not image.placed:
            found += f"; {name} has neither sform nor qform, so its place is unknown"
    if mri.qform is not None and label.qform is not None and shape == other:
        by_qform = offset_in_voxels(mri.qform, shape, label.qform, shape)
        if by_qform <= LARGEST_MISALIGNMENT:
            found += "; their qforms agree, their sforms do not"
    yield replace(fault, found=found)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)
