"""What the channels of an exported network mean, and which of them HSF is to merge.

HSF's `ca_mode` adds up the probabilities of CA fields by their place, channels 2 to 4. It
may do so only where the channels are HSF's own five subfields; for every other label set
it must be told "1/2/3", which leaves the channels alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hsf_tune.config import Config
from hsf_tune.errors import printable
from hsf_tune.model.labels import CA_MODES, HSF_LABELS, are_hsf

UNMERGED = "1/2/3"


@dataclass(frozen=True)
class LabelSet:
    """The labels of an exported network.

    Attributes:
        channels: channel 1..N -> name, as the network has them.
        ca_mode: what HSF is told.
        hsf_channels: whether the channels are HSF's five subfields, for coarser labels trained
            with the forgiving loss.
    """

    channels: Mapping[int, str]
    ca_mode: str
    hsf_channels: bool

    @property
    def outputs(self) -> dict[int, str]:
        """Value in a segmentation -> name, after HSF's merging."""
        if not self.hsf_channels:
            return dict(self.channels)
        return dict(enumerate(CA_MODES[self.ca_mode], start=1))

    @property
    def groups(self) -> list[list[int]]:
        """For each output, background first, the channels whose probabilities it adds up."""
        if not self.hsf_channels:
            return [[k] for k in range(len(self.channels) + 1)]
        return [[0], *(list(channels) for channels in CA_MODES[self.ca_mode].values())]

    def to_metadata(self) -> dict[str, str]:
        """Text that travels inside the ONNX file; `from_metadata` reads it back."""
        return {
            "labels_names": json.dumps({str(k): v for k, v in self.channels.items()}),
            "ca_mode": self.ca_mode,
            "hsf_channels": json.dumps(self.hsf_channels),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], out_channels: int) -> LabelSet:
        """The labels that a file declares; numbers for names where it declares none.

        Raises:
            ValueError: what it declares makes no sense, or fits other channels.
        """
        if "labels_names" not in metadata:
            return cls({k: f"label {k}" for k in range(1, out_channels)}, UNMERGED, False)
        names = {
            int(k): printable(str(v)) for k, v in json_object(metadata["labels_names"]).items()
        }
        mode, hsf = metadata.get("ca_mode", UNMERGED), metadata.get("hsf_channels", "false")
        if sorted(names) != list(range(1, out_channels)):
            raise ValueError(f"labels_names names {sorted(names)} of {out_channels - 1} channels")
        if mode not in CA_MODES or hsf not in ("true", "false"):
            raise ValueError(f"ca_mode is {mode!r}, hsf_channels {hsf!r}")
        if hsf == "true" and not are_hsf(names):
            raise ValueError("hsf_channels is true, but the labels are not HSF's")
        return cls(names, mode, hsf == "true")


def json_object(text: str) -> dict[str, Any]:
    """A JSON object from a file's metadata.

    Raises:
        ValueError: it is none.
    """
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"{text[:80]} is no JSON object")
    return content


def label_set(config: Config) -> LabelSet:
    """The labels of a network that was trained with this configuration.

    With the forgiving loss the channels are HSF's five subfields, and those CA fields that no
    dataset told apart are merged: nothing taught the network where their border is.
    """
    datasets = config.datasets.datasets.values()
    if config.models.use_forgiving_loss:
        told_apart = {d.ca_type for d in datasets}
        mode = next(mode for mode in CA_MODES if mode in told_apart)
        return LabelSet(dict(HSF_LABELS), mode, True)
    names: dict[int, list[str]] = {}
    for dataset in datasets:
        for label, name in sorted(dataset.labels_names.items()):
            known = names.setdefault(label, [])
            if name not in known:
                known.append(name)
    return LabelSet({k: " or ".join(v) for k, v in sorted(names.items())}, UNMERGED, False)
