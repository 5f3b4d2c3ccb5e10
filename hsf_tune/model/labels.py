"""Which of the network's channels a dataset's labels stand for, found by name.

HSF's network tells DG, CA1, CA2, CA3 and SUB apart. A dataset may merge CA fields
(`ca_type`), and may leave the head or the tail of the hippocampus unlabelled (HEAD, TAIL). The
forgiving loss and the evaluation both read what is decided here; neither looks at names itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from hsf_tune.errors import ConfigError, did_you_mean

HSF_LABELS: Mapping[int, str] = {1: "DG", 2: "CA1", 3: "CA2", 4: "CA3", 5: "SUB"}
FREE_LABELS = ("HEAD", "TAIL")  # whose voxels may be several subfields
_DG, _CA1, _CA2, _CA3, _SUB = HSF_LABELS
# How far CA fields are told apart, finest first -> name of each label -> the channels it adds up.
CA_MODES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "1/2/3": {name: (channel,) for channel, name in HSF_LABELS.items()},
    "1/23": {"DG": (_DG,), "CA1": (_CA1,), "CA2/3": (_CA2, _CA3), "SUB": (_SUB,)},
    "123": {"DG": (_DG,), "CA": (_CA1, _CA2, _CA3), "SUB": (_SUB,)},
}


@dataclass(frozen=True)
class Merging:
    """How a dataset's labels and HSF's channels meet.

    Args:
        channels: for each label 0..N the channels that it is the union of; empty for HEAD and TAIL.
        allowed: for each label 0..N the labels that a voxel so labelled may be given: itself, for
            HEAD any subfield, for TAIL CA1 (or what contains it) and SUB.
    """

    channels: tuple[tuple[int, ...], ...]
    allowed: tuple[tuple[int, ...], ...]

    n_channels: ClassVar[int] = len(HSF_LABELS) + 1  # of the network, the background's among them

    @property
    def scored(self) -> tuple[int, ...]:
        """Labels that have channels, the background first."""
        return tuple(label for label, channels in enumerate(self.channels) if channels)


def find_merging(labels_names: Mapping[int, str], ca_type: str) -> Merging:
    """Match a dataset's labels with HSF's channels by name, whatever their order and case.

    Args:
        labels_names: label 1..N -> name; "CA2/3", "CA23" and "CA2-3" are the same, as are "CA"
            and "CA1/2/3".
        ca_type: "1/2/3", "1/23" or "123".

    Raises:
        ConfigError: a name is unknown, missing or there twice.
    """
    if ca_type not in CA_MODES:
        raise ConfigError(
            f"datasets.ca_type is '{ca_type}'." + did_you_mean(str(ca_type), CA_MODES)
        )
    n_labels = count_labels(labels_names)
    channels: list[tuple[int, ...]] = [(0,)]
    for label in range(1, n_labels + 1):
        channels.append(_channels_of(labels_names[label]))
    found = [c for c in channels[1:] if c]
    free = [_upper(labels_names[k]) for k in free_labels(labels_names)]
    wanted = CA_MODES[ca_type]
    complete = sorted(found) == sorted(wanted.values()) and len(found) + len(free) == n_labels
    if not complete or len(set(free)) < len(free):
        raise ConfigError(
            f"datasets.labels_names holds {', '.join(labels_names.values())}, but with ca_type "
            f"'{ca_type}' the forgiving loss expects {', '.join(wanted)}, each once, and HEAD and "
            "TAIL if you have them. Rename the labels or change ca_type; for labels other than "
            "HSF's give models.use_forgiving_loss=False and "
            f"finetuning.out_channels={n_labels + 1}."
        )
    return Merging(tuple(channels), _allowed(labels_names, channels))


def count_labels(labels_names: Mapping[int, str]) -> int:
    """N, if the labels are numbered 1..N.

    Raises:
        ConfigError: they are not.
    """
    n_labels = len(labels_names)
    if sorted(labels_names) != list(range(1, n_labels + 1)):
        raise ConfigError(
            f"datasets.labels_names numbers its labels {sorted(labels_names)}; they must be 1 to "
            f"{n_labels} without a gap. Map the values on disk to such numbers in datasets.labels."
        )
    return n_labels


def free_labels(labels_names: Mapping[int, str]) -> tuple[int, ...]:
    """Labels such as HEAD and TAIL, in which the forgiving loss permits any subfield."""
    return tuple(label for label, name in labels_names.items() if _upper(name) in FREE_LABELS)


def are_hsf(labels_names: Mapping[int, str]) -> bool:
    """Whether these are HSF's five subfields, each in its own channel."""
    return {label: _upper(name) for label, name in labels_names.items()} == HSF_LABELS


def _allowed(
    labels_names: Mapping[int, str], channels: list[tuple[int, ...]]
) -> tuple[tuple[int, ...], ...]:
    subfields = tuple(label for label, c in enumerate(channels) if c and label > 0)
    tail = tuple(label for label in subfields if {_CA1, _SUB} & set(channels[label]))
    allowed: list[tuple[int, ...]] = [(0,)]
    for label in range(1, len(channels)):
        if channels[label]:
            allowed.append((label,))
        else:
            allowed.append(subfields if _upper(labels_names[label]) == "HEAD" else tail)
    return tuple(allowed)


def _channels_of(name: str) -> tuple[int, ...]:
    """HSF's channels that a label's name stands for; empty for HEAD, TAIL and unknown names."""
    word = re.sub(r"[\s_]", "", name.upper())
    if word in ("DG", "SUB"):
        return (_DG,) if word == "DG" else (_SUB,)
    if word == "CA":
        return (_CA1, _CA2, _CA3)
    if span := re.fullmatch(r"CA([123])-(?:CA)?([123])", word):
        return tuple(range(int(span[1]) + _DG, int(span[2]) + _CA1))
    if listed := re.fullmatch(r"CA([123](?:[/+&,]?(?:CA)?[123])*)", word):
        return tuple(sorted({int(digit) + _DG for digit in re.findall(r"[123]", listed[1])}))
    return ()


def _upper(name: str) -> str:
    return name.strip().upper()
