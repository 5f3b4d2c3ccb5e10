"""Find the cases of a study: which image belongs to which label map, and to whom.

Only names and folders are looked at; no image is opened (`checks` and `store.py`
do that). Every fault is collected: one missing label does not hide the next.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hsf_tune.config import DatasetConfig, DatasetsConfig
from hsf_tune.data.listing import Listing
from hsf_tune.data.names import (
    Side,
    bids_subject,
    file_safe,
    is_nifti,
    side_of,
    stem,
    subjects_of,
)
from hsf_tune.errors import DataError, printable


@dataclass(frozen=True)
class Case:
    """One image crop and its label map.

    Attributes:
        id: unique, stable, safe as a file name: dataset--subject--pattern[--n].
        subject: qualified, `dataset/name`; the unit of every split and statistic.
        pattern: name of the pattern that found it, which is the contrast's name.
        side: from the pattern's name, else from the file's, else None.
    """

    id: str
    dataset: str
    subject: str
    pattern: str
    side: Side | None
    mri: Path
    label: Path


@dataclass(frozen=True)
class Fault:
    """One thing that keeps a dataset from training, as a sentence in four parts."""

    where: str  # a file, a folder or a configuration key
    found: str  # goes on from `where`: "has no label map"
    expected: str
    todo: str

    def __post_init__(self) -> None:
        for name, text in vars(self).items():
            object.__setattr__(self, name, printable(text))
        object.__setattr__(self, "where", self.where.replace("\n", "\\n"))

    def __str__(self) -> str:
        return f"{self.where} {self.found}; expected {self.expected}. {self.todo}"


@dataclass(frozen=True)
class Sentence(Fault):
    """A fault that whoever found it put into words: `found` says it all."""

    def __str__(self) -> str:
        return self.found


@dataclass(frozen=True)
class _Match:
    """An image that a pattern found, and what its label pattern found beside it."""

    dataset: str
    pattern: str
    subject: str | None
    mri: Path
    labels: tuple[Path, ...]
    label_glob: str


def find_cases(datasets: DatasetsConfig) -> list[Case]:
    """All cases, in discovery order: datasets, then patterns, then sorted paths.

    Raises:
        DataError: one message that lists every fault of every dataset.
    """
    cases, faults = discover(datasets)
    if faults:
        raise DataError("\n".join(str(fault) for fault in faults))
    return cases


def discover(datasets: DatasetsConfig) -> tuple[list[Case], list[Fault]]:
    """The cases that can be told apart, and every fault met on the way.

    A file that is part of a fault is part of no case.
    """
    faults: list[Fault] = []
    matches: list[_Match] = []
    for name, dataset in datasets.datasets.items():
        folder = dataset_folder(datasets, name)
        missing = _missing_folder(datasets, name, folder)
        if missing is not None:
            faults.append(missing)
            continue
        found, wrong = _search(name, dataset, folder)
        matches += found
        faults += wrong
    paired, wrong = _pair(matches)
    clashes = _clashes(paired)
    faults += wrong + [_used_twice(path, users) for path, users in clashes.items()]
    taken: set[str] = set()
    cases = [
        _case(match, match.subject, taken)
        for match in paired
        if match.subject is not None and not {match.mri, match.labels[0]} & set(clashes)
    ]
    return cases, list(dict.fromkeys(faults))


def dataset_folder(datasets: DatasetsConfig, name: str) -> Path:
    """The folder of one dataset: `main_path/path`, with or without a slash between them.

    Only an absolute path may stand on its own; a relative one that happens to be in the working
    directory would be other data.
    """
    main, below = Path(datasets.main_path).expanduser(), datasets.datasets[name].path
    joined = main / below.lstrip("/\\")
    alone = Path(below)
    return alone if alone.is_absolute() and alone.is_dir() and not joined.is_dir() else joined


def _missing_folder(datasets: DatasetsConfig, name: str, folder: Path) -> Fault | None:
    if folder.is_dir():
        return None
    main = Path(datasets.main_path).expanduser()
    if not main.is_dir():
        return Fault(
            f"datasets.main_path={datasets.main_path}",
            "is no folder",
            "the folder that holds the datasets' folders",
            "Correct it in the dataset's YAML, or give datasets.main_path=... here.",
        )
    inside = ", ".join(sorted(p.name for p in main.iterdir() if p.is_dir())[:10]) or "no folder"
    return Fault(
        f"datasets.datasets.{name}.path={datasets.datasets[name].path}",
        f"is no folder below {main} (it holds {inside})",
        "the folder that holds the subjects",
        "Correct the path, or datasets.main_path.",
    )


def _search(name: str, dataset: DatasetConfig, folder: Path) -> tuple[list[_Match], list[Fault]]:
    key = f"datasets.datasets.{name}"
    listing = Listing(folder)
    faults: list[Fault] = [_endless(listing.endless)] if listing.endless else []
    matches: list[_Match] = []
    nameless: list[Path] = []
    for pattern, globs in dataset.patterns.items():
        where = f"{key}.patterns.{pattern}"
        found, broken = _images(listing, folder, globs.mri, f"{where}.mri")
        faults += broken
        if not found and not broken:
            faults.append(
                Fault(
                    f"{where}.mri={globs.mri}",
                    f"matches no .nii or .nii.gz file below {folder}",
                    "at least one",
                    "Correct the pattern ('**/' stands for any folders), or remove it.",
                )
            )
        try:
            subjects = subjects_of([mri.relative_to(folder) for mri in found], dataset.subject)
        except ValueError as error:
            todo = "Correct the expression; its first group names the subject."
            place, wrong = f"{key}.subject={dataset.subject}", f"is no regular expression ({error})"
            return [], [Fault(place, wrong, "one", todo)]
        for mri, subject in _once_each(found, subjects):
            if subject is None:
                nameless.append(mri)
            wanted = _filled(globs.label, subject or stem(mri), stem(mri))
            labels, broken = _images(listing, mri.parent, wanted, f"{where}.label")
            faults += broken
            if not broken:
                others = tuple(label for label in labels if label != mri)
                matches.append(_Match(name, pattern, subject, mri, others, wanted))
    if nameless:
        faults.append(_nameless(nameless, key, dataset.subject))
    if dataset.subject is None:
        faults += _folders_that_are_no_subjects(matches, folder, key)
    return matches, faults


def _once_each(mris: list[Path], subjects: list[str | None]) -> Iterator[tuple[Path, str | None]]:
    """Images with their subjects; one that links also lead to under another name counts once."""
    seen = set()
    for mri, subject in zip(mris, subjects, strict=True):
        key = (subject, mri.resolve())
        if key not in seen:
            seen.add(key)
            yield mri, subject


def _endless(folder: Path) -> Fault:
    todo = "Remove the links that lead to the same folders again and again."
    return Fault(str(folder), "is reached by too many ways", "folders without such links", todo)


def _images(
    listing: Listing, folder: Path, pattern: str, key: str
) -> tuple[list[Path], list[Fault]]:
    """Sorted NIfTI files that a pattern matches; other files are passed over."""
    try:
        files, gaps = listing.match(folder, pattern)
    except ValueError as error:
        return [], [
            Fault(
                f"{key}={pattern}",
                f"is no pattern ({error})",
                "a glob below the folder, such as '**/*_t2.nii.gz'",
                "Correct the pattern; '**' stands alone between slashes.",
            )
        ]
    faults = [Fault(str(gap.path), gap.found, "files that can be read", gap.todo) for gap in gaps]
    images = []
    for path in filter(is_nifti, files):
        if printable(str(path)) == str(path) and not re.search(r"[\n\t]", str(path)):
            images.append(path)
        else:
            todo = "Rename the file or folder."
            found = "has a name with control characters, or one that is not UTF-8"
            faults.append(Fault(str(path), found, "a name of letters, digits and signs", todo))
    return images, faults


def _filled(pattern: str, subject: str, name: str) -> str:
    values = {"{subject}": glob.escape(subject), "{stem}": glob.escape(name)}
    return re.sub(r"\{(subject|stem)\}", lambda hit: values[hit.group()], pattern)


def _nameless(mris: list[Path], key: str, regex: str | None) -> Fault:
    expected = (
        f"a match of {key}.subject={regex}"
        if regex
        else "a folder for each subject, or 'sub-<name>' in the file's name"
    )
    others = f" (nor do {len(mris) - 1} others)" if len(mris) > 1 else ""
    return Fault(
        str(mris[0]),
        f"does not say whose image it is{others}",
        expected,
        f"Set {key}.subject to a regular expression whose first group is the subject's name,"
        r" such as '^(\w+?)_'.",
    )


def _folders_that_are_no_subjects(matches: list[_Match], folder: Path, key: str) -> Iterator[Fault]:
    """A first folder whose files name several subjects (`t1w/sub-01.nii.gz`) is none itself."""
    named: dict[str, set[str]] = {}
    for match in matches:
        first, *rest = match.mri.relative_to(folder).parts
        name = bids_subject("/".join(rest))
        if name:
            named.setdefault(first, set()).add(name)
    for first, names in named.items():
        if len(names) > 1:
            yield Fault(
                str(folder / first),
                f"holds images of several subjects ({', '.join(sorted(names)[:5])})",
                "one folder for each subject",
                f"Set {key}.subject to a regular expression such as '(sub-[A-Za-z0-9]+)'.",
            )


def _pair(matches: list[_Match]) -> tuple[list[_Match], list[Fault]]:
    """Matches with exactly one label map, and a fault for each other one."""
    label_maps = {m.labels[0]: m.mri for m in matches if len(m.labels) == 1}
    paired, faults = [], []
    for match in matches:
        key = f"datasets.datasets.{match.dataset}.patterns.{match.pattern}"
        owner = label_maps.get(match.mri)
        if owner is not None:
            faults.append(
                Fault(
                    str(match.mri),
                    f"is caught by {key}.mri, but is the label map of {owner.name}",
                    "images only",
                    "Make the pattern narrower, so that it leaves label maps out.",
                )
            )
        elif not match.labels:
            faults.append(_unlabelled(match, f"{key}.label"))
        elif len(match.labels) > 1:
            names = ", ".join(path.name for path in match.labels[:5])
            todo = f"Make {key}.label narrower; {{stem}} or {{subject}} in it ties it to its image."
            found = f"has {len(match.labels)} label maps: {names}"
            faults.append(Fault(str(match.mri), found, "one", todo))
        else:
            paired.append(match)
    return paired, faults


def _unlabelled(match: _Match, key: str) -> Fault:
    unknown = re.findall(r"\{\w+\}", match.label_glob)
    hint = f" {unknown[0]} is not filled in; {{subject}} and {{stem}} are." if unknown else ""
    return Fault(
        str(match.mri),
        f"has no label map: no other image in its folder matches '{match.label_glob}'",
        "one",
        f"Add the file, correct {key}, or make the image's pattern leave it out.{hint}",
    )


def _clashes(matches: list[_Match]) -> dict[Path, list[_Match]]:
    """Files in more cases than they may be in, with those cases.

    One label map may serve several contrasts of one subject, which lie on one grid; not two
    images of one pattern, and not two subjects.
    """
    users: dict[Path, list[_Match]] = {}
    images = {match.mri for match in matches}
    for match in matches:
        for path in (match.mri, match.labels[0]):
            users.setdefault(path, []).append(match)

    def clash(path: Path, found: list[_Match]) -> bool:
        people = {(m.dataset, m.subject) for m in found}
        contrasts = {m.pattern for m in found}
        shared = len(people) == 1 and len(contrasts) == len(found) and path not in images
        return len(found) > 1 and not shared

    return {path: found for path, found in users.items() if clash(path, found)}


def _used_twice(path: Path, matches: list[_Match]) -> Fault:
    names = ", ".join(f"{m.dataset}/{m.pattern}/{m.mri.name}" for m in matches[:5])
    return Fault(
        str(path),
        f"is used {len(matches)} times: by {names}",
        "each image in one case, and a label map in several only for contrasts of one subject",
        "Make the patterns narrower, so that each finds its own files.",
    )


def _case(match: _Match, subject: str, taken: set[str]) -> Case:
    base = "--".join(file_safe(part) for part in (match.dataset, subject, match.pattern))
    name, n = base, 1
    while name.lower() in taken:  # some file systems don't tell case apart
        n += 1
        name = f"{base}--{n}"
    taken.add(name.lower())
    return Case(
        id=name,
        dataset=match.dataset,
        subject=f"{match.dataset}/{subject}",
        pattern=match.pattern,
        side=side_of(match.pattern) or side_of(stem(match.mri)),
        mri=match.mri,
        label=match.labels[0],
    )
