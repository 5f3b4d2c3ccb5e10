"""Examine one case: what its MRI and its label map hold, and whether they fit together.

One case in, its faults and its facts out; nothing is compared between cases (`checks.py`
does that) and nothing is changed or kept in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation
from numpy.typing import NDArray

from hsf_tune.data.cases import Case, Fault
from hsf_tune.data.geometry import axes_of, difference, offset_in_voxels
from hsf_tune.data.rawfile import BadFile, RawImage, read_raw
from hsf_tune.data.reading import LARGEST_MISALIGNMENT

NOT_WHOLE = 1e-3  # scaled integers come back as 2.0000001
MOST_LABELS = 100  # more different values in a crop are no label map
MOST_LABELS_IF_SURE = 32  # fewer, all whole, and half of the voxels equal: no MRI
EDGE_SHARE = 0.01  # of the labelled voxels; fewer on the crop's faces are no cut


@dataclass(frozen=True)
class CaseFacts:
    """What the table, the remarks and the comparisons between cases need of a sound case.

    Attributes:
        shape: (X, Y, Z) voxels in RAS+.
        spacing_mm: voxel sides in RAS+.
        axes, label_axes: how the two files are stored ("RAS", "LPI" ...).
        volumes_mm3: of each label 1..N, 0 where it is absent.
        centre_mm: of all labels together, (x, y, z) in RAS+.
        image_hash, labels_hash: of the voxels in RAS+, whatever their file's type.
        remarks: kind of oddity -> what was found, for `checks.py` to gather over cases.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    axes: str
    label_axes: str
    volumes_mm3: Mapping[int, float]
    centre_mm: tuple[float, float, float]
    image_hash: str
    labels_hash: str
    remarks: Mapping[str, str]


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


class _Values(NamedTuple):
    """The different values of a volume, in rising order."""

    numbers: NDArray[Any]
    counts: NDArray[Any]

    @property
    def whole(self) -> bool:
        return bool((np.abs(self.numbers - np.rint(self.numbers)) <= NOT_WHOLE).all())

    @property
    def largest_share(self) -> float:
        return float(self.counts.max() / self.counts.sum())

    def looks_like_mri(self) -> bool:
        return len(self.numbers) > MOST_LABELS and (self.whole or self.largest_share < 0.5)

    def looks_like_labels(self) -> bool:
        return (
            1 < len(self.numbers) <= MOST_LABELS_IF_SURE and self.whole and self.largest_share > 0.5
        )


def examine(case: Case, rules: LabelRules) -> Examined:
    """Read both files of a case and find all that is wrong with them."""
    faults: list[Fault] = []
    mri = _read(case.mri, faults)
    label = _read(case.label, faults)
    image_values = _values(mri, "intensities", faults)
    label_values = _values(label, "labels", faults)
    if mri is not None and image_values is not None:
        faults += _image_faults(mri, image_values, rules)
    if label is not None and label_values is not None:
        faults += _label_faults(label, label_values, rules)
    if image_values is not None and label_values is not None:
        faults = _swapped(case, image_values, label_values) or faults
    if mri is not None and label is not None:
        faults += _pair_faults(mri, label)
    if faults or mri is None or label is None or image_values is None:
        return Examined(case, tuple(faults), None)
    facts = _facts(mri, label, image_values, rules)
    same = facts.image_hash == _hash(_to_ras(label))
    if same:
        todo = "Replace the one that is a copy."
        fault = Fault(str(case.label), "holds the same voxels as its MRI", "a label map", todo)
        return Examined(case, (fault,), None)
    return Examined(case, (), facts)


def _read(path: Any, faults: list[Fault]) -> RawImage | None:
    try:
        return read_raw(path)
    except BadFile as bad:
        faults.extend(bad.faults)
        return None


def _values(image: RawImage | None, what: str, faults: list[Fault]) -> _Values | None:
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
    return _Values(*np.unique(image.values, return_counts=True))


def _image_faults(mri: RawImage, values: _Values, rules: LabelRules) -> Iterator[Fault]:
    where = str(mri.path)
    if len(values.numbers) == 1:
        found = f"is constant: every voxel is {values.numbers[0]:g}"
        yield Fault(where, found, "an MRI", "Replace the image, or leave it out.")
    elif values.looks_like_labels():
        found = f"looks like a label map: it holds only the values {_listed(values.numbers)}"
        todo = "Correct the patterns, so that mri matches the image."
        yield Fault(where, found, "an MRI", todo)
    if min(mri.values.shape) < rules.least_side:
        yield Fault(
            where,
            f"is too small for the network: {_times(mri.values.shape)} voxels",
            f"at least {rules.least_side} along each axis, which the network halves to one voxel",
            "Crop it more generously, or leave it out.",
        )


def _label_faults(label: RawImage, values: _Values, rules: LabelRules) -> Iterator[Fault]:
    where = str(label.path)
    if values.looks_like_mri():
        found = f"looks like an MRI: it holds {len(values.numbers):,} different values"
        todo = "Correct the patterns, so that label matches the label map."
        yield Fault(where, found, "a label map", todo)
        return
    whole = np.rint(values.numbers)
    fractions = np.abs(values.numbers - whole) > NOT_WHOLE
    if fractions.any():
        yield Fault(
            where,
            f"holds values that are no whole numbers: {_listed(values.numbers[fractions])}",
            "label numbers",
            "Take the label map, not a probability map; resample it with nearest neighbours.",
        )
        return
    known = {0: 0, **rules.mapping}
    strange = {int(v): int(n) for v, n in zip(whole, values.counts, strict=True) if v not in known}
    if strange:
        yield _unmapped(where, strange, rules)
    elif not any(known[int(v)] for v in whole):
        dropped = f"only {_listed(whole)}, which {rules.key} drops" if whole.any() else "only zeros"
        todo = "Replace the label map, or leave the case out (make the mri pattern miss it)."
        yield Fault(where, f"is empty: it holds {dropped}", "at least one labelled voxel", todo)


def _unmapped(where: str, strange: Mapping[int, int], rules: LabelRules) -> Fault:
    counted = [f"{value} ({n:,} voxel{'s' if n > 1 else ''})" for value, n in strange.items()]
    first, s = next(iter(strange)), "s" if len(strange) > 1 else ""
    return Fault(
        where,
        f"holds label{s} {', '.join(counted)}, which {rules.key} does not map",
        f"0 and {_listed(sorted(rules.mapping))}",
        f'Add "{first}: 0" to drop it, or map it to a subfield'
        + (f"; likewise the {len(strange) - 1} others." if len(strange) > 1 else "."),
    )


def _swapped(case: Case, image: _Values, label: _Values) -> list[Fault]:
    if not (image.looks_like_labels() and label.looks_like_mri()):
        return []
    found = (
        f"is taken for the MRI but holds only {len(image.numbers)} values, and its label map"
        f" {case.label.name} holds {len(label.numbers):,}: the two look swapped"
    )
    todo = "Swap the patterns mri and label."
    return [Fault(str(case.mri), found, "an MRI and its label map", todo)]


def _pair_faults(mri: RawImage, label: RawImage) -> Iterator[Fault]:
    shape, other = mri.values.shape, label.values.shape
    todo = "Resample the label map to its MRI with nearest neighbours, or correct the patterns."
    apart = offset_in_voxels(mri.affine, shape, label.affine, other)
    if apart <= LARGEST_MISALIGNMENT:
        return
    if sorted(shape) != sorted(other) or (shape != other and not np.isfinite(apart)):
        found = f"has {_times(other)} voxels, its MRI {mri.path.name} {_times(shape)}"
        yield Fault(str(label.path), found, "the same grid", todo)
        return
    found = difference(mri.affine, label.affine, shape)
    for image, name in ((mri, "its MRI"), (label, "the label map")):
        if not image.placed:
            found += f"; {name} has neither sform nor qform, so its place is unknown"
    if mri.qform is not None and label.qform is not None and shape == other:
        by_qform = offset_in_voxels(mri.qform, shape, label.qform, shape)
        if by_qform <= LARGEST_MISALIGNMENT:
            found += "; their qforms agree, their sforms do not"
    yield Fault(
        str(label.path),
        found,
        f"{mri.path.name} and its label map in one place, to a tenth of a voxel",
        "Look at both in a viewer; correct the header that is wrong, or resample the label map.",
    )


def _facts(mri: RawImage, label: RawImage, values: _Values, rules: LabelRules) -> CaseFacts:
    orientation = io_orientation(mri.affine)
    image = _to_ras(mri)
    indices = _indices(label, rules.mapping, rules.n_labels)
    turned = apply_orientation(indices, io_orientation(label.affine))
    counts = np.bincount(turned.ravel(), minlength=rules.n_labels + 1)
    voxel_mm3 = float(abs(np.linalg.det(mri.affine[:3, :3])))
    voxels = np.argwhere(indices > 0)
    centre = label.affine @ np.append(voxels.mean(axis=0), 1.0)
    sides = [0.0, 0.0, 0.0]
    for side, (axis, _) in zip(mri.spacing_mm, orientation, strict=True):
        sides[int(axis)] = side
    x, y, z = image.shape
    return CaseFacts(
        shape=(x, y, z),
        spacing_mm=(sides[0], sides[1], sides[2]),
        axes=axes_of(mri.affine),
        label_axes=axes_of(label.affine),
        volumes_mm3={i: counts[i] * voxel_mm3 for i in range(1, rules.n_labels + 1)},
        centre_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
        image_hash=_hash(image),
        labels_hash=_hash(turned),
        remarks=dict(_oddities(mri, label, values, indices)),
    )


def ras_indices(label: RawImage, mapping: Mapping[int, int], n_labels: int) -> NDArray[np.uint8]:
    """A label map as indices 0..N in RAS+; what is not mapped is background."""
    return apply_orientation(_indices(label, mapping, n_labels), io_orientation(label.affine))


def _indices(label: RawImage, mapping: Mapping[int, int], n_labels: int) -> NDArray[np.uint8]:
    """The same in the file's own order."""
    with np.errstate(invalid="ignore"):
        numbers, places = np.unique(np.rint(label.values), return_inverse=True)
    known = {0: 0, **{v: i for v, i in mapping.items() if 0 <= i <= n_labels}}
    table = [known.get(int(n), 0) if np.isfinite(n) else 0 for n in numbers]
    return np.array(table, dtype=np.uint8)[places].reshape(label.values.shape)


def _oddities(
    mri: RawImage, label: RawImage, values: _Values, indices: NDArray[np.uint8]
) -> Iterator[tuple[str, str]]:
    """Kind and finding of what is allowed, but worth a look."""
    for image, name in ((mri, "MRI"), (label, "label map")):
        if not image.placed:
            yield "unplaced", name
        elif image.sform is not None and image.qform is not None:
            apart = offset_in_voxels(
                image.sform, image.values.shape, image.qform, image.values.shape
            )
            if apart > 0.5:
                yield "two_places", name
    header, sides = np.array(mri.header_spacing_mm), np.array(mri.spacing_mm)
    if not np.allclose(header, sides, rtol=0.05):
        yield "two_spacings", f"{_mm(header)} against {_mm(sides)}"
    if mri.unit in ("m", "micron"):
        yield "unit", mri.unit
    if max(sides) > 4 * min(sides):
        yield "anisotropic", _mm(sides)
    if min(sides) < 0.05 or max(sides) > 5:
        yield "odd_spacing", _mm(sides)
    if axes_of(mri.affine) != axes_of(label.affine):
        yield "two_orientations", f"{axes_of(mri.affine)} and {axes_of(label.affine)}"
    share = float(values.counts.max() / values.counts.sum())
    if share > 0.9:
        most = values.numbers[values.counts.argmax()]
        yield "mostly_one_value", f"{share:.0%} of the voxels are {most:g}"
    low, high = _percentiles(values, (0.01, 0.99))
    top = float(values.numbers[-1])
    if top - high > 20 * (high - low) > 0:
        yield "spikes", f"up to {top:g}, while 98 % lie between {low:g} and {high:g}"
    outer = sum(np.count_nonzero(indices.take(end, axis)) for axis in range(3) for end in (0, -1))
    if outer > EDGE_SHARE * np.count_nonzero(indices):
        yield "edge", f"{outer:,} labelled voxels"


def _percentiles(values: _Values, shares: tuple[float, ...]) -> list[float]:
    below = np.cumsum(values.counts) / values.counts.sum()
    last = len(below) - 1
    return [float(values.numbers[min(int(np.searchsorted(below, s)), last)]) for s in shares]


def _to_ras(image: RawImage) -> NDArray[Any]:
    return apply_orientation(image.values.astype(np.float32), io_orientation(image.affine))


def _hash(volume: NDArray[Any]) -> str:
    data = np.ascontiguousarray(volume) + 0  # no negative zeros
    return hashlib.blake2b(data.tobytes() + str(data.shape).encode(), digest_size=16).hexdigest()


def _listed(numbers: Any) -> str:
    most = 12
    shown = ", ".join(f"{n:g}" for n in list(numbers)[:most])
    return shown + (f" and {len(numbers) - most} more" if len(numbers) > most else "")


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


def _mm(sides: Any) -> str:
    return " x ".join(f"{side:.3g}" for side in sides) + " mm"
