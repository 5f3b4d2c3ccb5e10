"""Check what a configuration says about labels: mapping, names and the network's channels.

Only the configuration is looked at, no file. A label is a number 1..N with a name; the
network has one channel for each, and one for the background. With the forgiving loss it
has HSF's own channels instead; which names fit those is decided in `model/labels.py` and
comes in as a function, since data and model don't know each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from hsf_tune.config import Config, DatasetConfig
from hsf_tune.data.cases import Fault, Sentence
from hsf_tune.errors import ConfigError
from hsf_tune.wording import listed


class Placed(Protocol):
    """Where the forgiving loss puts a dataset's labels."""

    @property
    def n_channels(self) -> int:
        """Of the network, the background's among them."""


PlaceLabels = Callable[[Mapping[int, str], str], Placed]  # labels_names, ca_type


def labelling_faults(config: Config, place_labels: PlaceLabels | None = None) -> list[Fault]:
    """All that is wrong with the datasets' labels, names and `finetuning.out_channels`.

    Args:
        place_labels: raises ConfigError where the forgiving loss can't place labels of these
            names with this `ca_type`; None leaves that and its channels unchecked.
    """
    faults: list[Fault] = []
    for name, dataset in config.datasets.datasets.items():
        key = f"datasets.datasets.{name}"
        numbering = list(_numbering(key, dataset))
        faults += numbering + list(_mapping(key, dataset))
        if not config.models.use_forgiving_loss:
            faults += _plain_channels(key, dataset, config.finetuning.out_channels)
        elif place_labels is not None and not numbering:
            faults += _forgiving(key, dataset, config.finetuning.out_channels, place_labels)
    return faults + list(_contradictions(config))


def _numbering(key: str, dataset: DatasetConfig) -> Iterator[Fault]:
    names = dataset.labels_names
    wanted = list(range(1, len(names) + 1))
    if sorted(names) != wanted:
        yield Fault(
            f"{key}.labels_names",
            f"numbers its labels {listed(sorted(names))}",
            f"1 to {len(names)} without a gap" if names else "at least one label, numbered 1",
            "Renumber them here, and in the right-hand numbers of labels.",
        )
    taken: dict[str, int] = {}
    for label, name in names.items():
        other = taken.setdefault(name.strip().lower(), label)
        if other != label:
            yield Fault(
                f"{key}.labels_names",
                f"calls both {other} and {label} {name}",
                "a name of its own for each label",
                "Rename one, or map the values of both to one label.",
            )


def _mapping(key: str, dataset: DatasetConfig) -> Iterator[Fault]:
    names = dataset.labels_names
    for value, label in dataset.labels.items():
        if label != 0 and label not in names:
            yield Fault(
                f"{key}.labels",
                f"maps value {value} to label {label}, which labels_names does not name",
                f"one of {listed(sorted(names))}, or 0 to drop it",
                f'Add "{label}: NAME" to labels_names, or correct the number.',
            )
    if dataset.labels.get(0, 0) != 0:
        yield Fault(
            f"{key}.labels",
            f"maps value 0, the background, to label {dataset.labels[0]}",
            "0 to stay background",
            'Remove "0: ..." from labels.',
        )
    for label in sorted(set(names) - set(dataset.labels.values())):
        yield Fault(
            f"{key}.labels",
            f"maps no value to label {label} ({names[label]})",
            "at least one value for each name",
            f'Add "VALUE: {label}" with the value that the files hold, or remove the name.',
        )


def _plain_channels(key: str, dataset: DatasetConfig, channels: int) -> Iterator[Fault]:
    n = len(dataset.labels_names)
    if channels != n + 1:
        yield Fault(
            f"finetuning.out_channels={channels}",
            f"does not fit the {n} labels of {key}",
            f"{n + 1}: one channel for each label, and one for the background",
            f"Set finetuning.out_channels={n + 1}.",
        )


def _forgiving(
    key: str, dataset: DatasetConfig, channels: int, place_labels: PlaceLabels
) -> Iterator[Fault]:
    n = len(dataset.labels_names)
    try:
        n_channels = place_labels(dataset.labels_names, dataset.ca_type).n_channels
    except ConfigError as error:
        yield Sentence(f"{key}.labels_names", str(error), "", "")
        return
    if channels != n_channels:
        yield Fault(
            f"finetuning.out_channels={channels}",
            f"does not fit the forgiving loss, with which {key} is to train",
            f"{n_channels}: HSF's five subfields and the background",
            f"Set finetuning.out_channels={n_channels}, or give each of the {n} labels a channel:"
            f" models.use_forgiving_loss=False finetuning.out_channels={n + 1}.",
        )


def _contradictions(config: Config) -> Iterator[Fault]:
    """The same name for two numbers in two datasets: one channel can't be two things."""
    if config.models.use_forgiving_loss:
        return
    first: dict[str, tuple[str, int]] = {}
    for name, dataset in config.datasets.datasets.items():
        for label, called in dataset.labels_names.items():
            where, other = first.setdefault(_bare(called), (name, label))
            if other != label and where != name:
                yield Fault(
                    f"datasets.datasets.{name}.labels_names",
                    f"has {called} as label {label}, but datasets.datasets.{where} as {other}",
                    "one number for one subfield in all datasets",
                    "Renumber the labels of one of them, here and in labels.",
                )


def _bare(name: str) -> str:
    """A subfield's name without case and punctuation: "CA2/3" and "ca2-3" are one."""
    return re.sub(r"[^A-Z0-9]", "", name.upper())
