"""What HSF is told about the channels."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from hsf_tune.config import Config, config_from_dict
from hsf_tune.export.labels import LabelSet, label_set
from hsf_tune.export.segmenter import Segmenter
from hsf_tune.finetuning.predict import uncertainty


def config_with(plain: dict[str, Any], ca_types: list[str], forgiving: bool) -> Any:
    plain = deepcopy(plain)
    first = plain["datasets"]["datasets"]["balls"]
    plain["datasets"]["datasets"] = {
        f"d{i}": {**first, "ca_type": ca} for i, ca in enumerate(ca_types)
    }
    plain["models"] |= {"use_forgiving_loss": forgiving, "out_channels": 6}
    plain["finetuning"] |= {"out_channels": 6}
    return config_from_dict(plain)


@pytest.mark.parametrize(
    ("ca_types", "ca_mode", "outputs"),
    [
        (["1/2/3"], "1/2/3", ["DG", "CA1", "CA2", "CA3", "SUB"]),
        (["1/23"], "1/23", ["DG", "CA1", "CA2/3", "SUB"]),
        (["123"], "123", ["DG", "CA", "SUB"]),
        (["123", "1/23"], "1/23", ["DG", "CA1", "CA2/3", "SUB"]),
    ],
)
def test_hsf_merges_what_no_dataset_told_apart(
    plain_config: dict[str, Any], ca_types: list[str], ca_mode: str, outputs: list[str]
) -> None:
    """With the forgiving loss the channels are HSF's own; the finest labels decide."""
    labels = label_set(config_with(plain_config, ca_types, forgiving=True))
    assert labels.ca_mode == ca_mode
    assert list(labels.outputs.values()) == outputs
    assert sorted(k for group in labels.groups for k in group) == [0, 1, 2, 3, 4, 5]
    assert len(labels.groups) == len(outputs) + 1


@pytest.mark.parametrize("ca_type", ["1/2/3", "1/23", "123"])
def test_other_label_sets_are_left_alone(plain_config: dict[str, Any], ca_type: str) -> None:
    """HSF merges by place; channels 2 to 4 of another guideline are no CA fields."""
    labels = label_set(config_with(plain_config, [ca_type], forgiving=False))
    assert labels.ca_mode == "1/2/3"
    assert labels.outputs == {1: "OUTER", 2: "INNER"}
    assert labels.groups == [[0], [1], [2]]


def test_doubt_between_merged_fields_is_none(config: Config) -> None:
    """Under 1/23 a voxel half CA2 and half CA3 is CA2/3 for sure."""
    channels = {1: "DG", 2: "CA1", 3: "CA2", 4: "CA3", 5: "SUB"}
    segmenter = Segmenter((), LabelSet(channels, "1/23", True), config, "")
    probabilities = np.array([0, 0, 0, 0.5, 0.5, 0]).reshape(6, 1, 1, 1)
    assert segmenter.to_labels(probabilities).item() == 3
    assert uncertainty(segmenter.merged(probabilities)).item() == pytest.approx(0, abs=1e-6)


def test_labels_travel_inside_the_file() -> None:
    """What is written into an ONNX file's notes comes back the same."""
    labels = LabelSet({1: "DG", 2: "CA2/3"}, "1/2/3", False)
    assert LabelSet.from_metadata(labels.to_metadata(), 3) == labels


def test_foreign_files_have_numbered_labels() -> None:
    """HSF's own files say nothing about their channels."""
    assert LabelSet.from_metadata({}, 3).outputs == {1: "label 1", 2: "label 2"}
