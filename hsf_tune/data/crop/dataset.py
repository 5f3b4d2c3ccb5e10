"""The dataset YAML that goes with a folder of crops, ready for `datasets=PATH`.

Names of labels are not in any image, so they are numbered where the user gives none; the
file says what to check before training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from hsf_tune.installed import typed

IMAGE_SUFFIX, LABEL_SUFFIX = "_hippocampus_crop", "_hippocampus_crop_seg"


def dataset_yaml(
    name: str, values: Sequence[int], names: Mapping[int, str], sides: Sequence[str]
) -> str:
    """The text of `NAME.yaml`, beside the folder NAME of crops.

    Args:
        values: label values in the crops.
        names: value -> name; "label N" where there is none.
        sides: those that were cut.
    """
    labels = {int(value): index for index, value in enumerate(sorted(values), start=1)}
    plain: dict[str, Any] = {
        "main_path": ".",
        "output_path": "./models/",
        "batch_size": 1,
        "num_workers": 0,
        "datasets": {
            name: {
                "path": name,
                "ca_type": "1/2/3",
                "patterns": {
                    side: {
                        "mri": f"**/*_{side}{IMAGE_SUFFIX}.nii.gz",
                        "label": "{stem}_seg.nii.gz",
                    }
                    for side in sides
                },
                "labels": labels,
                "labels_names": {i: names.get(v, f"label {v}") for v, i in labels.items()},
            }
        },
        "finetuning": {"out_channels": len(labels) + 1},
        "models": {"use_forgiving_loss": False},
    }
    header = (
        f"# Crops cut as HSF cuts them.   {typed('tune', 'datasets=THIS_FILE')}\n"
        "# Check: labels (value in the file: label 1..N, 0 drops it) and labels_names. Where they are\n"
        "# HSF's subfields (DG, CA1, CA2, CA3, SUB), set ca_type, and models.use_forgiving_loss: true\n"
        "# with finetuning.out_channels: 6.\n"
    )
    return header + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
