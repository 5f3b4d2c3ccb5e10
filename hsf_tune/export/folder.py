"""Write the folder that HSF uses: models, configuration, README and model card.

All is prepared beside its final place and moved there only once every file is checked, so
that a folder is whole or absent. Nothing that is there already is ever overwritten.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hsf_tune.errors import ConfigError
from hsf_tune.export.hsf_config import (
    check_name,
    guess_contrast,
    hsf_command,
    segmentation_yaml,
    shell_text,
)
from hsf_tune.export.labels import LabelSet, label_set
from hsf_tune.export.model_card import model_card
from hsf_tune.export.onnx_file import OnnxFile, write_onnx
from hsf_tune.export.segmenter import reference_metadata
from hsf_tune.finetuning.finished import FinishedRun, TrainedModel
from hsf_tune.finetuning.strategy import SavedStrategy
from hsf_tune.installed import typed
from hsf_tune.model.weights import build_network, load_base

Kind = Literal["single", "bag"]


@dataclass(frozen=True)
class Exported:
    """A folder that `hsf --config-dir FOLDER/conf segmentation=NAME` uses.

    Attributes:
        command: the words of the `hsf` command.
    """

    folder: Path
    name: str
    kind: Kind
    files: tuple[OnnxFile, ...]
    labels: LabelSet
    command: tuple[str, ...]


def write_folder(
    run: FinishedRun,
    saved: SavedStrategy,
    models: Sequence[TrainedModel],
    kind: Kind,
    folder: Path,
    name: str,
) -> Exported:
    """Export trained models.

    Args:
        saved: the strategy that the models were trained with.
        folder: may exist, but must hold no ONNX file and none of the files written here.
        name: of the models and of HSF's configuration.

    Raises:
        ConfigError: the name can't be used, or files are in the way.
        ModelError: a file does not compute what PyTorch computes.
    """
    check_name(name)
    folder = folder.expanduser().resolve()
    labels = label_set(run.config)
    stems = [name] if len(models) == 1 else [f"{name}_{i}" for i in range(1, len(models) + 1)]
    _require_free(folder, stems, name)
    staging = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        files = tuple(
            _export(model, run, saved, labels, staging / f"{stem}.onnx")
            for model, stem in zip(models, stems, strict=True)
        )
        conf = staging / "conf" / "segmentation"
        conf.mkdir(parents=True)
        conf.joinpath(f"{name}.yaml").write_text(
            segmentation_yaml(files, folder, labels.ca_mode), encoding="utf-8"
        )
        command = tuple(hsf_command(folder, name, guess_contrast(run.config)))
        exported = Exported(folder, name, kind, files, labels, command)
        staging.joinpath("README.md").write_text(readme(exported), encoding="utf-8")
        card = model_card(run, saved, models, files, labels, name)
        staging.joinpath("model_card.md").write_text(card, encoding="utf-8")
        _move_into(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    moved = tuple(replace(f, path=folder / f.path.name) for f in files)
    return replace(exported, files=moved)


def readme(exported: Exported) -> str:
    """How the folder is used."""
    folder, name = exported.folder, exported.name
    n = len(exported.files)
    models = "one model" if n == 1 else f"{n} models, which vote"
    labels = "\n".join(f"| {k} | {v} |" for k, v in exported.labels.outputs.items())
    return f"""# {name}

A hippocampal segmentation network for HSF ({models}).

## Segment whole-head MRI

    pip install "hsf==1.2.3" onnxruntime
    {shell_text(exported.command)}

- Put the folder of your MRI and a pattern for `files.pattern`; the folder must be absolute.
- The pattern must match whole heads only: HSF would take its own crops and results for heads.
- `roiloc.contrast` is `t1` or `t2`, the contrast of the MRI. `roiloc=default_t2iso` is for
  isotropic voxels; use `roiloc=default_corot2` for thick coronal slices.
- Each image is segmented {21 * n} times with small changes, and the results vote.
  Faster: `segmentation.segmentation.test_time_augmentation=False`.
- The segmentations lie beside each MRI, on its own grid: `*_left_hippocampus_seg.nii.gz` and
  `*_right_hippocampus_seg.nii.gz`. MRI that have some already are skipped; `files.overwrite=True`.

## Segment crops, without HSF

    {typed("predict", str(folder), "CROP.nii.gz")}

## Labels

| value | label |
|---|---|
{labels}

## If this folder moves

HSF needs to know where the models are: correct `models_path` in `conf/segmentation/{name}.yaml`, or
add `segmentation.models_path=/NEW/FOLDER/` to the command. It deletes a model whose checksum is not
the one in that file. Keep no other `*.onnx` here: HSF would let it vote.
"""


def _export(
    model: TrainedModel, run: FinishedRun, saved: SavedStrategy, labels: LabelSet, path: Path
) -> OnnxFile:
    weights = load_base(model.path)
    network = build_network(weights, weights.architecture.out_channels)
    metadata = {
        "name": path.stem,
        **labels.to_metadata(),
        **reference_metadata(run.config),
        "strategy": saved.strategy.describe(),
        "trial": model.trial,
        "base_model": saved.base_name,
        "base_sha256": saved.base_sha256,
        "weights_sha256": weights.sha256,
    }
    return write_onnx(network, path, metadata)


def _require_free(folder: Path, stems: Sequence[str], name: str) -> None:
    if folder.is_file():
        raise ConfigError(f"--to {folder} is a file; expected a folder, new or without models.")
    wanted = [
        folder / "README.md",
        folder / "model_card.md",
        folder / "conf" / "segmentation" / f"{name}.yaml",
        *(folder / f"{stem}.onnx" for stem in stems),
    ]
    found = [p for p in wanted if p.exists()]
    found += [p for p in folder.glob("*.onnx") if p not in found]
    if found:
        raise ConfigError(
            f"{folder} holds {', '.join(p.name for p in found)} already; nothing was changed. HSF"
            " runs every model of a folder, so an export needs one of its own: --to DIR."
        )


def _move_into(staging: Path, folder: Path) -> None:
    """Move every file to its place; a file that appeared there meanwhile stays."""
    for source in sorted(p for p in staging.rglob("*") if p.is_file()):
        target = folder / source.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise ConfigError(
                f"{target} appeared while exporting; it was left alone. Use --to DIR."
            )
        os.replace(source, target)
