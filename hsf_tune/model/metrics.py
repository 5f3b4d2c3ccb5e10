"""How well a segmentation agrees with its reference, label by label, in millimetres.

Every function takes one case as label indices and the voxel size. A label in neither volume is
left out of the result; one that a single volume lacks scores the worst there is: overlap 0 and, for
distances, the image's diagonal. How scores are averaged and compared is decided in `verdict.py`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

OVERLAP_METRICS = (
    "dice",
    "volume_mm3",
    "reference_volume_mm3",
    "volume_similarity",
    "volume_error_mm3",
)
SURFACE_METRICS = ("surface_dice", "hd95_mm", "assd_mm")

Scores = dict[int, dict[str, float]]
Labels = NDArray[np.int64]


def overlap_scores(
    prediction: ArrayLike,
    reference: ArrayLike,
    n_labels: int,
    spacing_mm: Sequence[float],
    *,
    ignore_labels: Collection[int] = (),
) -> Scores:
    """Dice and volumes of each label.

    Args:
        prediction: (X, Y, Z) label indices in [0, n_labels].
        reference: (X, Y, Z) label indices in [0, n_labels].
        n_labels: foreground labels, 1..n_labels.
        spacing_mm: voxel size along X, Y and Z.
        ignore_labels: voxels that the reference labels so (HEAD, TAIL) count for nothing, and the
            labels themselves are not scored.

    Returns:
        label -> {dice, volume_mm3, reference_volume_mm3, volume_similarity (1 - |P - R| / (P + R)),
        volume_error_mm3 (P - R)}; P and R are the volumes of prediction and reference.

    Raises:
        ValueError: the sizes differ, or a label is out of range.

    Source: Dice 1945, doi:10.2307/1932409; Taha and Hanbury 2015, doi:10.1186/s12880-015-0068-x.
    """
    predicted, truth = _prepare(prediction, reference, n_labels, ignore_labels)
    pairs = np.bincount((truth * (n_labels + 1) + predicted).ravel(), minlength=(n_labels + 1) ** 2)
    counts = pairs.reshape(n_labels + 1, n_labels + 1)  # reference x prediction
    voxel_mm3 = math.prod(spacing_mm)
    scores: Scores = {}
    for label in _scored(n_labels, ignore_labels):
        found, wanted = int(counts[:, label].sum()), int(counts[label].sum())
        if found + wanted == 0:
            continue
        scores[label] = {
            "dice": 2 * int(counts[label, label]) / (found + wanted),
            "volume_mm3": found * voxel_mm3,
            "reference_volume_mm3": wanted * voxel_mm3,
            "volume_similarity": 1 - abs(found - wanted) / (found + wanted),
            "volume_error_mm3": (found - wanted) * voxel_mm3,
        }
    return scores


def surface_scores(
    prediction: ArrayLike,
    reference: ArrayLike,
    n_labels: int,
    spacing_mm: Sequence[float],
    *,
    tolerance_mm: float | None = None,
    ignore_labels: Collection[int] = (),
) -> Scores:
    """Surface Dice and surface distances of each label.

    Surface Dice weighs each surface element by its area, so that thick slices do not distort
    it. The distances are between the outermost voxels' centres: HD95 is the larger of the two
    directions' 95th percentiles, ASSD the mean over all outermost voxels of both volumes. A label
    that touches the image's edge has a surface there.

    Args:
        prediction: (X, Y, Z) label indices in [0, n_labels].
        reference: (X, Y, Z) label indices in [0, n_labels].
        n_labels: foreground labels, 1..n_labels.
        spacing_mm: voxel size along X, Y and Z.
        tolerance_mm: distance that surface Dice forgives; None is the largest voxel side.
        ignore_labels: as in `overlap_scores`.

    Returns:
        label -> {surface_dice, hd95_mm, assd_mm}.

    Raises:
        ValueError: the sizes differ, or a label is out of range.

    Source: Nikolov et al. 2021, doi:10.2196/26151 (surface Dice); Maier-Hein et al. 2024,
    doi:10.1038/s41592-023-02151-z; computed by MONAI.
    """
    predicted, truth = _prepare(prediction, reference, n_labels, ignore_labels)
    tolerance = max(spacing_mm) if tolerance_mm is None else tolerance_mm
    diagonal = math.dist((0, 0, 0), [n * s for n, s in zip(truth.shape, spacing_mm, strict=True)])
    boxes = [ndimage.find_objects(volume, max_label=n_labels) for volume in (predicted, truth)]
    scores: Scores = {}
    for label in _scored(n_labels, ignore_labels):
        box = _joined(boxes[0][label - 1], boxes[1][label - 1])
        if box is None:
            continue
        masks = [np.pad(volume[box] == label, 1) for volume in (predicted, truth)]
        if all(mask.any() for mask in masks):
            scores[label] = _distances(masks[0], masks[1], spacing_mm, tolerance)
        else:
            scores[label] = {"surface_dice": 0.0, "hd95_mm": diagonal, "assd_mm": diagonal}
    return scores


def _distances(
    predicted: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    tolerance_mm: float,
) -> dict[str, float]:
    # here, because MONAI takes three seconds to import and most trials need no surfaces
    from monai.metrics.utils import get_edge_surface_distance

    pair = torch.from_numpy(predicted), torch.from_numpy(truth)
    spacing = [float(side) for side in spacing_mm]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 warns of its own call
        _, voxels, _ = get_edge_surface_distance(*pair, spacing=spacing, symmetric=True)
        edges, elements, areas = get_edge_surface_distance(
            *pair, spacing=spacing, symmetric=True, use_subvoxels=True
        )
    weights = [area[edge] for area, edge in zip(areas, edges, strict=True)]
    # distances come in float32, and a tolerance of one voxel shall forgive one voxel
    near = [distance <= tolerance_mm * (1 + 1e-6) for distance in elements]
    correct = sum(float(w[close].sum()) for w, close in zip(weights, near, strict=True))
    return {
        "surface_dice": correct / sum(float(w.sum()) for w in weights),
        "hd95_mm": max(float(np.percentile(d.numpy(), 95)) for d in voxels),
        "assd_mm": float(torch.cat(tuple(voxels)).double().mean()),
    }


def _prepare(
    prediction: ArrayLike, reference: ArrayLike, n_labels: int, ignore_labels: Collection[int]
) -> tuple[Labels, Labels]:
    predicted = np.asarray(prediction).astype(np.int64)
    truth = np.asarray(reference).astype(np.int64)
    if predicted.shape != truth.shape or truth.ndim != 3:
        raise ValueError(
            f"prediction is {predicted.shape} and reference {truth.shape}; expected one (X, Y, Z)"
        )
    for name, volume in (("prediction", predicted), ("reference", truth)):
        if volume.size and not 0 <= volume.min() <= volume.max() <= n_labels:
            raise ValueError(
                f"{name} holds labels {volume.min()} to {volume.max()}; expected 0 to {n_labels}"
            )
    ignored = np.isin(truth, [*ignore_labels])
    predicted[ignored] = truth[ignored] = 0
    return predicted, truth


def _scored(n_labels: int, ignore_labels: Collection[int]) -> list[int]:
    return [label for label in range(1, n_labels + 1) if label not in ignore_labels]


def _joined(
    first: tuple[slice, ...] | None, second: tuple[slice, ...] | None
) -> tuple[slice, ...] | None:
    """The smallest box that holds both."""
    if first is None or second is None:
        return first or second
    return tuple(
        slice(min(a.start, b.start), max(a.stop, b.stop))
        for a, b in zip(first, second, strict=True)
    )
