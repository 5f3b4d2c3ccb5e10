"""Check what a configuration says about labels: mapping, names and the network's channels.

Only the configuration is looked at, no file. A label is a number 1..N with a name; the
network has one channel for each, and one for the background. With the forgiving loss it
has HSF's own channels instead, and a dataset may tell fewer subfields apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from hsf_tune.config import Config, DatasetConfig
from hsf_tune.data.cases import Fault

# ca_type -> what the forgiving loss takes labels 1, 2, ... N for, HEAD and TAIL left out.
FORGIVEN: Mapping[str, tuple[str, ...]] = {
    "1/2/3": ("DG", "CA1", "CA2", "CA3", "SUB"),
    "1/23": ("DG", "CA1", "CA2/3", "SUB"),
    "123": ("DG", "CA1/2/3", "SUB"),
}
WHOLE_LENGTH = ("HEAD", "TAIL")  # labels of a stretch of the hippocampus, whatever the subfield


def labelling_faults(config: Config) -> list[Fault]:
    """All that is wrong with the datasets' labels, names and `finetuning.out_channels`."""
    faults: list[Fault] = []
    for name, dataset in config.datasets.datasets.items():
        key = f"datasets.datasets.{name}"
        faults += _numbering(key, dataset)
        faults += _mapping(key, dataset)
        check = _forgiving_channels if config.models.use_forgiving_loss else _plain_channels
        faults += check(key, dataset, config.finetuning.out_channels)
    return faults + list(_contradictions(config))


def labelling_remarks(config: Config) -> list[str]:
    """What looks odd about the labels' names, and may be meant."""
    remarks = []
    for name, dataset in config.datasets.datasets.items():
        if not config.models.use_forgiving_loss:
            continue
        plain, meant = _without_stretches(dataset), FORGIVEN[dataset.ca_type]
        for label, expected in zip(plain, meant, strict=False):
            found = dataset.labels_names[label]
            if _bare(found) not in {_bare(known) for known in meant}:
                remarks.append(
                    f"datasets.datasets.{name}.labels_names: label {label} is called {found}; the"
                    f" forgiving loss takes it for {expected}. If it is something else, set"
                    " models.use_forgiving_loss=False."
                )
    return remarks


def _numbering(key: str, dataset: DatasetConfig) -> Iterator[Fault]:
    names = dataset.labels_names
    wanted = list(range(1, len(names) + 1))
    if sorted(names) != wanted:
        yield Fault(
            f"{key}.labels_names",
            f"numbers its labels {_listed(sorted(names))}",
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
                f"one of {_listed(sorted(names))}, or 0 to drop it",
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


def _forgiving_channels(key: str, dataset: DatasetConfig, channels: int) -> Iterator[Fault]:
    plain, meant = _without_stretches(dataset), FORGIVEN[dataset.ca_type]
    merged = len(FORGIVEN["1/2/3"]) - len(meant)  # channels that the loss adds up
    where = f"finetuning.out_channels={channels}"
    names = ", ".join(dataset.labels_names[label] for label in plain)
    n = len(dataset.labels_names)
    alone = f"models.use_forgiving_loss=False finetuning.out_channels={n + 1}"
    if len(plain) != len(meant):
        yield Fault(
            f"{key}.labels_names",
            f"names {len(plain)} subfields ({names}), which the forgiving loss can't place",
            f"the {len(meant)} of ca_type {dataset.ca_type} ({', '.join(meant)}), HEAD and TAIL"
            " aside",
            f"Give the labels a channel each: {alone}. Or correct ca_type.",
        )
    elif channels != len(plain) + merged + 1:
        yield Fault(
            where,
            f"does not fit the forgiving loss on {key} ({names}; ca_type {dataset.ca_type})",
            f"{len(plain) + merged + 1}: the channels of HSF's own networks",
            f"Set finetuning.out_channels={len(plain) + merged + 1}, or {alone}.",
        )
    places = {_bare(name): place for place, name in enumerate(meant)}
    for place, label in enumerate(plain):
        found = dataset.labels_names[label]
        if places.get(_bare(found), place) != place and len(plain) == len(meant):
            yield Fault(
                f"{key}.labels_names",
                f"has {found} as label {label}, where the forgiving loss expects {meant[place]}",
                f"the order {', '.join(meant)}",
                "Renumber the labels here and in labels, or set models.use_forgiving_loss=False.",
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


def _without_stretches(dataset: DatasetConfig) -> list[int]:
    """Labels in order, HEAD and TAIL left out."""
    names = dataset.labels_names
    return [label for label in sorted(names) if names[label].strip().upper() not in WHOLE_LENGTH]


def _bare(name: str) -> str:
    """A subfield's name without case and punctuation: "CA2/3" and "ca2-3" are one."""
    return re.sub(r"[^A-Z0-9]", "", name.upper())


def _listed(numbers: list[int]) -> str:
    return ", ".join(str(n) for n in numbers) or "none"
