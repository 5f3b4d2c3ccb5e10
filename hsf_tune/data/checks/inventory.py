"""Count what a dataset holds: subjects, sides, contrasts, sizes, and the volume of each label.

The table of a dataset, as plain data; how it is printed is for `cli/check.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hsf_tune.config import DatasetsConfig
from hsf_tune.data.cases import Case
from hsf_tune.data.checks.facts import CaseFacts

OUTLIER_Z = 3.5  # Iglewicz and Hoaglin 1993, "How to detect and handle outliers"
LEAST_CASES = 6  # fewer say too little about what is usual
LEAST_SPREAD = 0.05  # of the median; a robust z below it would flag the rounding of voxels


@dataclass(frozen=True)
class Volume:
    """One label of one case: its volume, and how far that is from the dataset's median."""

    mm3: float
    robust_z: float | None  # None where the label is absent or the cases are too few

    @property
    def outlier(self) -> bool:
        return self.robust_z is not None and abs(self.robust_z) > OUTLIER_Z


@dataclass(frozen=True)
class DatasetTable:
    """Who and what a dataset holds; sound cases only.

    Attributes:
        subjects: bare names, sorted.
        cases: (pattern, side) -> number of cases.
        spacings_mm, shapes: RAS+ -> number of cases, the most frequent first.
        labels_names: label 1..N -> name.
        volumes: case id -> label -> volume.
    """

    dataset: str
    subjects: tuple[str, ...]
    cases: Mapping[tuple[str, str | None], int]
    spacings_mm: Mapping[tuple[float, float, float], int]
    shapes: Mapping[tuple[int, int, int], int]
    labels_names: Mapping[int, str]
    volumes: Mapping[str, Mapping[int, Volume]]

    def outliers(self) -> list[tuple[str, int, Volume]]:
        """Case id, label and volume of each that lies far from the dataset's median."""
        return [
            (case, label, volume)
            for case, row in self.volumes.items()
            for label, volume in row.items()
            if volume.outlier
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers."""
        return {
            "subjects": list(self.subjects),
            "cases": [
                {"pattern": pattern, "side": side, "n": n}
                for (pattern, side), n in self.cases.items()
            ],
            "spacings_mm": [{"mm": list(key), "n": n} for key, n in self.spacings_mm.items()],
            "shapes": [{"voxels": list(key), "n": n} for key, n in self.shapes.items()],
            "labels_names": {str(label): name for label, name in self.labels_names.items()},
            "volumes": {case: _plain(row, self.labels_names) for case, row in self.volumes.items()},
        }


def tables(
    cases: Sequence[Case], facts: Mapping[str, CaseFacts], datasets: DatasetsConfig
) -> dict[str, DatasetTable]:
    """The table of each dataset, in the configuration's order."""
    result = {}
    for name, dataset in datasets.datasets.items():
        own = [case for case in cases if case.dataset == name]
        spacings = Counter(_rounded(facts[case.id].spacing_mm) for case in own)
        shapes = Counter(facts[case.id].shape for case in own)
        result[name] = DatasetTable(
            dataset=name,
            subjects=tuple(sorted({case.subject.split("/", 1)[1] for case in own})),
            cases=dict(Counter((case.pattern, case.side) for case in own)),
            spacings_mm=dict(spacings.most_common()),
            shapes=dict(shapes.most_common()),
            labels_names=dict(sorted(dataset.labels_names.items())),
            volumes=_volumes(own, facts, sorted(dataset.labels_names)),
        )
    return result


def robust_z(values: Sequence[float]) -> list[float] | None:
    """Distance of each value from the median in robust standard deviations.

    0.6745 (x - median) / MAD, with the median absolute deviation taken as at least 5 % of
    the median; None for fewer than 6 values.

    Args:
        values: positive.

    Source: Iglewicz and Hoaglin 1993.
    """
    if len(values) < LEAST_CASES:
        return None
    median = float(np.median(values))
    deviation = float(np.median(np.abs(np.array(values) - median)))
    deviation = max(deviation, LEAST_SPREAD * median)
    return [0.6745 * (value - median) / deviation for value in values]


def _volumes(
    cases: Sequence[Case], facts: Mapping[str, CaseFacts], labels: Sequence[int]
) -> dict[str, dict[int, Volume]]:
    """Absent labels have volume 0 and no z; they are told of as absent."""
    rows: dict[str, dict[int, Volume]] = {case.id: {} for case in cases}
    for label in labels:
        mm3 = {case.id: float(facts[case.id].volumes_mm3.get(label, 0.0)) for case in cases}
        present = {case: volume for case, volume in mm3.items() if volume > 0}
        scores = dict(zip(present, robust_z(list(present.values())) or [], strict=False))
        for case, volume in mm3.items():
            rows[case][label] = Volume(volume, scores.get(case))
    return rows


def _rounded(spacing_mm: tuple[float, float, float]) -> tuple[float, float, float]:
    x, y, z = (round(side, 3) for side in spacing_mm)
    return x, y, z


def _plain(row: Mapping[int, Volume], names: Mapping[int, str]) -> dict[str, Any]:
    return {
        names[label]: {
            "mm3": round(volume.mm3, 2),
            "robust_z": None if volume.robust_z is None else round(volume.robust_z, 2),
            "outlier": volume.outlier,
        }
        for label, volume in row.items()
    }
