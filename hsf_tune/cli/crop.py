"""`crop --mri PATTERN --label PATTERN --to DIR`: heads to training crops."""

from __future__ import annotations

import argparse
import glob
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsf_tune.cli.shell import Screen
from hsf_tune.data.crop.cut import (
    PRESETS,
    SIDES,
    Crop,
    cut,
    locate,
    require_same_grid,
    write_image,
)
from hsf_tune.data.crop.dataset import IMAGE_SUFFIX, LABEL_SUFFIX, dataset_yaml
from hsf_tune.data.names import Side, bids_subject, file_safe, is_nifti, stem, subject_of
from hsf_tune.errors import ConfigError, DataError
from hsf_tune.files import write_text
from hsf_tune.installed import typed


@dataclass(frozen=True)
class Head:
    """A whole-head MRI and its labels; one file may hold both sides."""

    mri: Path
    subject: str
    labels: Mapping[Side, Path]
    mask: Path | None


def crop(args: argparse.Namespace, _: Sequence[str], console: Screen) -> int:
    """Cut every head and write the dataset's YAML; the exit code, 1 where a head was not cut."""
    heads = find_heads(args.mri, args.label, args.mask, args.subject)
    keep = side_mapping(args.left, args.right)
    config = args.to / f"{args.name}.yaml"
    _require_free([config, *(p for head in heads for p in _outputs(args, head).values())])
    names = label_names(args.names, keep)
    cut_values: dict[Side, set[int]] = {}
    failed = 0
    try:
        for number, head in enumerate(heads, start=1):
            console.print(f"{number}/{len(heads)}  {head.subject}  {head.mri}")
            try:
                _cut_one(args, head, keep, cut_values, console)
            except DataError as error:  # the other heads are not held up by one
                failed += 1
                console.say(str(error), "  Not cut", "red")
    finally:  # after Ctrl-C too: the crops that are there are a dataset
        values = sorted(set().union(*cut_values.values()))
        by_value = names_of_values(names, keep, values)
        if values:
            sides = [side for side in SIDES if side in cut_values]
            write_text(config, dataset_yaml(args.name, values, by_value, sides))
    if not values:
        raise DataError("No crop with labels was written. Correct what is said above.")
    if names and not by_value:
        raise DataError(
            f"--names gives {len(names)} names, but the crops hold {len(values)} labels"
            f" ({values}); expected as many. They are numbered in {config}: correct"
            " labels_names there."
        )
    console.print(
        f"{len(heads) - failed} of {len(heads)} heads cut. Labels {values}. Check {config},"
        f" then: {typed('check', f'datasets={config}')}",
    )
    return 1 if failed else 0


def _cut_one(
    args: argparse.Namespace,
    head: Head,
    keep: Mapping[Side, Mapping[int, int]],
    cut_values: dict[Side, set[int]],
    console: Screen,
) -> None:
    """Write both sides of a head; add the label values of each crop once it is there."""
    for label in set(head.labels.values()):
        require_same_grid(head.mri, label)
    located = locate(head.mri, PRESETS[args.preset], args.contrast, head.mask)
    paths = _outputs(args, head)
    for crop in cut(located, head.labels, keep):
        for warning in warnings_of(crop):
            console.say(warning, "  Warning")
        if not crop.values:
            continue
        write_image(crop.labels, paths[f"{crop.side} labels"])  # an image is never without
        write_image(crop.image, paths[f"{crop.side} image"])
        cut_values.setdefault(crop.side, set()).update(crop.values)


def warnings_of(crop: Crop) -> list[str]:
    """What a user should look at before training on a crop."""
    if not crop.values:
        return [
            f"the {crop.side} crop holds no label, so it is left out. Are the labels of this side"
            " in the file, and --left and --right not swapped?"
        ]
    found = []
    if crop.lost:
        total = sum(crop.lost.values())
        each = ", ".join(f"{value}: {n}" for value, n in crop.lost.items())
        found.append(
            f"the {crop.side} crop cuts off {total} label voxels ({each}). HSF will not see them"
            " either; a larger margin in HSF and here would (--preset)."
        )
    if crop.at_border and not crop.lost:
        labels = ", ".join(map(str, crop.at_border))
        found.append(f"in the {crop.side} crop label {labels} touches the border.")
    return found


def find_heads(mri: str, label: str, mask: str, subject: str | None = None) -> list[Head]:
    """The heads that a pattern finds, each with its labels and a brain mask if there is one.

    Args:
        mri: glob; `**` stands for any folders.
        label: glob in the MRI's own folder; may hold {stem}, {subject} and {side}.
        mask: glob in the MRI's own folder; what is a label map is no mask.
        subject: expression whose first group, or whole match, in an MRI's path is the subject;
            without it, the path's `sub-` entity or the first folder that the glob leaves open.

    Raises:
        DataError: no MRI, or not exactly one label map for each; all faults in one message.
    """
    pattern = Path(mri).expanduser()
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parent.parts))
    regex = _expression(subject)
    paths = [Path(p) for p in sorted(glob.glob(str(pattern), recursive=True))]
    heads, faults = [], []
    for path in (p for p in paths if is_nifti(p)):
        who = _subject_of(path, fixed, regex)
        if who is None:
            expected = f"a match of --subject {subject}" if subject else "a folder for each subject"
            faults.append(
                f"{path} does not say whose MRI it is; expected {expected}. Name the subject's part"
                r" of the path: --subject '/(\w+)/t1', for example."
            )
            continue
        labels: dict[Side, Path] = {}
        for side in SIDES:
            wanted = _filled(label, stem(path), who, side)
            found = [p for p in sorted(path.parent.glob(wanted)) if p != path and is_nifti(p)]
            if len(found) == 1:
                labels[side] = found[0]
            else:
                faults.append(
                    f"{path}: {len(found)} files beside it match the label pattern {wanted};"
                    " expected one. Correct --label; {stem} stands for the MRI's name."
                )
        masks = [p for p in path.parent.glob(mask) if p not in labels.values()]
        heads.append(Head(path, who, labels, sorted(masks)[0] if masks else None))
    if faults:
        raise DataError("\n".join(dict.fromkeys(faults)))
    if not heads:
        raise DataError(f"--mri {mri} matches no .nii or .nii.gz file. Correct it, and quote it.")
    return heads


def side_mapping(left: str | None, right: str | None) -> dict[Side, dict[int, int]]:
    """Side -> value on disk -> common value: the left one's, in the order given.

    Raises:
        ConfigError: only one side is given, they differ in length, or share a value.
    """
    if left is None and right is None:
        return {}
    if left is None or right is None:
        raise ConfigError("--left and --right go together: name the values of both sides.")
    values: dict[Side, list[int]] = {"left": _numbers(left), "right": _numbers(right)}
    if len(values["left"]) != len(values["right"]):
        raise ConfigError(
            f"--left {left} names {len(values['left'])} labels, --right {right}"
            f" {len(values['right'])}; expected as many, in the same order."
        )
    shared = sorted(set(values["left"]) & set(values["right"]))
    if shared:
        raise ConfigError(
            f"--left and --right share {shared}; a value can't tell the sides apart then. If both"
            " sides have the same values, leave --left and --right away."
        )
    common = values["left"]
    return {side: dict(zip(own, common, strict=True)) for side, own in values.items()}


def label_names(text: str | None, keep: Mapping[Side, Mapping[int, int]]) -> list[str]:
    """The words of --names, [] without.

    Raises:
        ConfigError: --left declares more labels, or fewer.
    """
    names = [name.strip() for name in text.split(",")] if text else []
    if names and keep and len(names) != len(keep["left"]):
        raise ConfigError(
            f"--names {text} gives {len(names)} names, --left and --right {len(keep['left'])}"
            " labels; expected as many, in the same order."
        )
    return names


def names_of_values(
    names: Sequence[str], keep: Mapping[Side, Mapping[int, int]], found: Iterable[int]
) -> dict[int, str]:
    """Label value -> name: of the declared values, else of those found, by rising value.

    {} where there are more or fewer names than values.
    """
    values = list(keep["left"].values()) if keep else sorted(found)
    return dict(zip(values, names, strict=True)) if len(values) == len(names) else {}


def _numbers(text: str) -> list[int]:
    """'1-3,7' as [1, 2, 3, 7]."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None:
            raise ConfigError(f"'{text}': expected label values such as 1-7 or 1,2,5-9.")
        first, last = int(match[1]), int(match[2] or match[1])
        found += range(first, last + 1)
    if len(set(found)) < len(found) or 0 in found or not found:
        raise ConfigError(f"'{text}': expected each label once, and not 0, the background.")
    return found


def _filled(pattern: str, name: str, subject: str, side: str) -> str:
    values = {
        "{stem}": glob.escape(name),
        "{subject}": glob.escape(subject),
        "{side}": side,
    }
    return re.sub(r"\{(stem|subject|side)\}", lambda hit: values[hit.group()], pattern)


def _expression(subject: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(subject) if subject else None
    except re.error as error:
        raise ConfigError(
            f"--subject {subject} is no regular expression ({error}). Correct it; its first group"
            " names the subject."
        ) from error


def _subject_of(mri: Path, fixed: Path, regex: re.Pattern[str] | None) -> str | None:
    """By the expression, else BIDS `sub-` entity of the path, else first folder below `fixed`."""
    if regex is not None:
        return subject_of(mri, regex)
    return bids_subject(mri.as_posix()) or subject_of(mri.relative_to(fixed), None)


def _outputs(args: argparse.Namespace, head: Head) -> dict[str, Path]:
    folder = args.to / args.name / file_safe(head.subject)
    return {
        f"{side} {kind}": folder / f"{stem(head.mri)}_{side}{suffix}.nii.gz"
        for side in SIDES
        for kind, suffix in (("image", IMAGE_SUFFIX), ("labels", LABEL_SUFFIX))
    }


def _require_free(paths: Iterable[Path]) -> None:
    seen: set[Path] = set()
    for path in paths:
        if path.exists():
            raise ConfigError(f"{path} exists; nothing was written. Choose another folder: --to.")
        if path in seen:
            raise ConfigError(
                f"{path} would be written for two heads, as subject and name are alike. Name"
                " the subjects with --subject, or cut the heads into different folders."
            )
        seen.add(path)
