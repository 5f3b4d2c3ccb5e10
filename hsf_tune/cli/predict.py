"""`predict MODEL_OR_RUN mri.nii.gz ...`: segment crops without HSF."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy.typing as npt
import torch

from hsf_tune.cli.shell import Screen
from hsf_tune.data.checks.content import sound_image
from hsf_tune.data.names import bids_subject, stem
from hsf_tune.data.rawfile import BadFile, RawImage, claimed_voxels
from hsf_tune.data.reading import MULTIPLE, normalised, read_labels, to_original
from hsf_tune.errors import ConfigError, DataError, did_you_mean
from hsf_tune.export.segmenter import Segmenter, open_segmenter
from hsf_tune.files import csv_text, replacing, write_text
from hsf_tune.finetuning.predict import make_views, predict, score_prediction, uncertainty
from hsf_tune.installed import typed
from hsf_tune.machine import cpu_count
from hsf_tune.records import Score, label_means

LARGEST_CROP = 2**23  # voxels, padding not counted; 203 along each axis
LARGEST_CROP_MM = 150.0  # a hippocampus is about 50 mm long, a head about 200
Array = npt.NDArray[Any]


def segment(args: argparse.Namespace, _: Sequence[str], console: Screen) -> int:
    """Segment each crop, and score it where there is a reference; the exit code."""
    torch.set_num_threads(args.threads or cpu_count())
    if args.tta < 1:
        raise ConfigError(f"--tta {args.tta}: expected a number of views, 1 or more.")
    references: list[Path | None] = list(args.reference or [None] * len(args.mri))
    if len(references) != len(args.mri):
        raise ConfigError(
            f"--reference names {len(references)} label maps for {len(args.mri)} images; expected"
            " one for each image, in the same order."
        )
    outputs = [_outputs(mri, args) for mri in args.mri]
    table = (args.to or args.mri[0].parent) / "prediction_scores.csv"
    written = [path for paths in outputs for path in paths.values()]
    _require_free([*written, *([table] if args.reference else [])], args.overwrite)
    segmenter = open_segmenter(args.model)
    dataset = _dataset(segmenter, args.dataset)
    names = ", ".join(f"{k} {v}" for k, v in segmenter.labels.outputs.items())
    console.print(f"{segmenter.about}\nLabels: {names}")
    scores: list[Score] = []
    for mri, reference, paths in zip(args.mri, references, outputs, strict=True):
        found = _segment(segmenter, mri, reference, paths, dataset, args.tta, args.seed)
        scores += found
        dice = label_means(found)
        means = "  ".join(f"{label} {value:.3f}" for label, value in dice.items())
        console.print(f"{paths['labels']}{f'  Dice: {means}' if dice else ''}")
    if scores:
        write_text(table, csv_text(Score._fields, scores))
        console.print(f"Scores: {table}")
    return 0


def _segment(
    segmenter: Segmenter,
    mri: Path,
    reference: Path | None,
    paths: dict[str, Path],
    dataset: str,
    n_views: int,
    seed: int,
) -> list[Score]:
    """Segment one crop, write what was asked for, and score it where a reference is given."""
    raw = _read_crop(mri)
    image, grid = normalised(raw)
    labels = segmenter.config.datasets.datasets[dataset].labels
    key = f"datasets.{dataset}.labels"
    truth = None if reference is None else read_labels(reference, grid, labels, key)
    views = make_views(n_views, grid.spacing_mm, seed)
    probabilities = predict(segmenter.predictors, image, views)
    _save(to_original(segmenter.to_labels(probabilities), grid), raw, paths["labels"])
    if "uncertainty" in paths:
        doubt = uncertainty(segmenter.merged(probabilities))
        _save(to_original(doubt, grid), raw, paths["uncertainty"])
    if truth is None:
        return []
    subject = bids_subject(mri.as_posix()) or mri.absolute().parent.name
    return score_prediction(
        probabilities, truth, grid, segmenter.config, dataset, stem(mri), subject
    )


def _save(values: Array, like: RawImage, path: Path) -> None:
    """A volume on the image's own grid: whole under its name, or not at all."""
    image = nib.Nifti1Image(values, like.affine, like.header.copy())
    image.header.set_data_dtype(values.dtype)
    image.header["cal_max"] = image.header["cal_min"] = 0
    with replacing(path) as temporary:
        nib.save(image, temporary)


def _outputs(mri: Path, args: argparse.Namespace) -> dict[str, Path]:
    folder = args.to or mri.parent
    kinds = {"labels": "pred", **({"uncertainty": "uncertainty"} if args.uncertainty else {})}
    return {kind: folder / f"{stem(mri)}_{word}.nii.gz" for kind, word in kinds.items()}


def _require_free(paths: Sequence[Path], overwrite: bool) -> None:
    twice = sorted({str(p) for p in paths if paths.count(p) > 1})
    if twice:
        raise ConfigError(
            f"{twice[0]} would be written for several images, as their names are alike. Leave --to"
            " away, so that each result lies beside its image, or name them one at a time."
        )
    there = [str(p) for p in paths if p.exists()]
    if there and not overwrite:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise ConfigError(
            f"{there[0]}{more} exists; nothing was written. Choose another folder with --to, or"
            " replace them with --overwrite."
        )


def _read_crop(mri: Path) -> RawImage:
    """An image that would be good enough to train on, and is no whole head.

    Raises:
        DataError: it is not; what a header claims is refused before it is read.
    """
    claimed = claimed_voxels(mri)
    try:
        raw = sound_image(mri, MULTIPLE) if claimed <= LARGEST_CROP else None
    except BadFile as bad:
        raise DataError(str(bad)) from None
    sides = [n * s for n, s in zip(raw.values.shape, raw.spacing_mm, strict=True)] if raw else []
    if raw is None or max(sides) > LARGEST_CROP_MM:
        size = f"{' x '.join(f'{s:.0f}' for s in sides)} mm" if raw else f"{claimed:,} voxels"
        raise DataError(
            f"{mri} is {size}, which is a whole head; expected a crop of one hippocampus. Segment"
            f" heads with the hsf command, or cut them first: {typed('crop', '--help')}."
        )
    return raw


def _dataset(segmenter: Segmenter, asked: str | None) -> str:
    """Whose labels the references have."""
    known = list(segmenter.config.datasets.datasets)
    if asked is not None and asked not in known:
        raise ConfigError(f"--dataset {asked}: no such dataset.{did_you_mean(asked, known)}")
    return asked or known[0]
