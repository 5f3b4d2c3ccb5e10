"""Segment one crop with one or several networks, from one or several views of it.

Test-time augmentation shows the networks the crop as it is, mirrored, turned and scaled,
within the ranges that HSF uses, brings each answer back to the crop and averages. Where
crops and networks come from, and where results go, is decided by the command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

from hsf_tune.config import Config
from hsf_tune.data.reading import Grid
from hsf_tune.data.store import StoredCase
from hsf_tune.finetuning.evaluate import score_case
from hsf_tune.records import Score

Array = npt.NDArray[Any]
Predictor = Callable[[Array], Array]  # (1, 1, X, Y, Z) -> (1, C, X, Y, Z) probabilities, float32

DEGREES, SCALES, TRANSLATION_MM = 15.0, 0.2, 3.0  # ranges of HSF's test-time augmentation


@dataclass(frozen=True)
class View:
    """A way of looking at a crop: mirrored left to right or not, then moved.

    Attributes:
        matrix: (3, 3), from the view's voxels, counted from its centre, to the crop's.
        shift: (3,) voxels.
    """

    mirrored: bool
    matrix: Array
    shift: Array

    def of(self, volume: Array) -> Array:
        """The view of a (X, Y, Z) crop; beyond its border the outermost voxels go on."""
        moved = _resampled(volume, self.matrix, self.shift)
        return moved[::-1] if self.mirrored else moved

    def back(self, volumes: Array) -> Array:
        """(C, X, Y, Z) probabilities of the view on the crop's own grid."""
        volumes = volumes[:, ::-1] if self.mirrored else volumes
        inverse = np.linalg.inv(self.matrix)
        return np.stack([_resampled(v, inverse, -inverse @ self.shift) for v in volumes])


PLAIN = View(False, np.eye(3), np.zeros(3))


def make_views(n: int, spacing_mm: Sequence[float], seed: int = 0) -> list[View]:
    """The crop as it is, its mirror image, and n - 2 random views, every other one mirrored.

    Args:
        spacing_mm: voxel sides; angles and lengths are those of the patient, not of the voxels.
    """
    random = np.random.default_rng(seed)
    views = [PLAIN, View(True, np.eye(3), np.zeros(3))][:n]
    spacing = np.diag(np.asarray(spacing_mm, float))
    while len(views) < n:
        turn = Rotation.from_euler("xyz", random.uniform(-DEGREES, DEGREES, 3), degrees=True)
        scale = np.diag(random.uniform(1 - SCALES, 1 + SCALES, 3))
        matrix = np.linalg.inv(spacing) @ turn.as_matrix() @ scale @ spacing
        shift = np.linalg.inv(spacing) @ random.uniform(-TRANSLATION_MM, TRANSLATION_MM, 3)
        views.append(View(len(views) % 2 == 1, matrix, shift))
    return views


def predict(predictors: Sequence[Predictor], image: Array, views: Sequence[View]) -> Array:
    """Mean probabilities over networks and views.

    Args:
        image: (X, Y, Z) float32, normalised and padded, as `read_image` gives it.

    Returns:
        (C, X, Y, Z) float32, summing to 1 over C.
    """
    total: Array | None = None
    for view in views:
        plain = view is PLAIN
        seen = np.ascontiguousarray(image if plain else view.of(image), dtype=np.float32)
        for predictor in predictors:
            found = predictor(seen[None, None])[0]
            found = found if plain else view.back(found)
            total = found.astype(np.float64) if total is None else total + found
    if total is None:
        raise ValueError(f"{len(predictors)=} and {len(views)=} must not be 0")
    return (total / (len(views) * len(predictors))).astype(np.float32)


def uncertainty(probabilities: Array) -> Array:
    """Entropy of (C, X, Y, Z) mean probabilities, from 0 (sure) to 1 (all classes alike).

    HSF writes the same map in nats; here it is divided by log(C).
    """
    p = np.clip(probabilities.astype(np.float64), 1e-12, 1)
    entropy = -(p * np.log(p)).sum(axis=0) / np.log(len(p))
    return np.clip(entropy, 0, 1).astype(np.float32)


def score_prediction(
    probabilities: Array,
    reference: Array,
    grid: Grid,
    config: Config,
    dataset: str,
    case: str,
    subject: str,
) -> list[Score]:
    """Scores of one prediction, by the very functions that score trials.

    Args:
        probabilities: (C, X, Y, Z) of the network's channels, padded.
        reference: (X, Y, Z) labels of `dataset`, padded.
    """
    import torch

    empty = np.zeros((1, *reference.shape), np.float32)
    stored = StoredCase(case, empty, reference, grid)
    logits = torch.from_numpy(np.log(np.clip(probabilities, 1e-12, 1)))[None]
    rows, _ = score_case(logits, stored, config, dataset, case, subject, surface=True)
    return rows


def _resampled(volume: Array, matrix: Array, shift: Array) -> Array:
    centre = (np.asarray(volume.shape) - 1) / 2
    offset = centre + shift - matrix @ centre
    moved: Array = ndimage.affine_transform(volume, matrix, offset, order=1, mode="nearest")
    return moved
