"""Find every fault of a study before anything trains, and all that deserves a second look.

Faults stop a run; remarks do not. What one file or one case can be faulted for is decided
in `rawfile.py` and `content.py`, what the configuration can be in `labelling.py`; here all
of it is gathered, cases are compared with each other, and the splits are tried out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Literal

from hsf_tune.config import Config
from hsf_tune.data.cases import Case, Fault, Sentence, discover
from hsf_tune.data.checks.content import Examined, LabelRules, examine
from hsf_tune.data.checks.facts import CaseFacts
from hsf_tune.data.checks.inventory import DatasetTable, tables
from hsf_tune.data.checks.labelling import PlaceLabels, labelling_faults
from hsf_tune.data.checks.remarks import remarks_on
from hsf_tune.data.splits import finetune_split, make_splits
from hsf_tune.errors import DataError
from hsf_tune.machine import cpu_count

Purpose = Literal["search", "finetune"]
Progress = Callable[[int, int], None]  # cases done, cases in all


@dataclass(frozen=True)
class Findings:
    """What the gate found.

    Attributes:
        cases: in discovery order, faulty ones included.
        faults: what stops a run, by file; empty if the study may train.
        warnings: sentences to show and to keep.
        table: dataset -> who and what it holds.
        facts: case id -> facts, of the sound cases.
    """

    cases: tuple[Case, ...]
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]
    table: Mapping[str, DatasetTable]
    facts: Mapping[str, CaseFacts]

    def require_sound(self) -> None:
        """Go on only without faults.

        Raises:
            DataError: one message that lists every fault.
        """
        if self.faults:
            n = len(self.faults)
            raise DataError(
                f"{n} fault{'s' if n > 1 else ''} found before training:\n"
                + "\n".join(f"- {fault}" for fault in self.faults)
            )

    def to_dict(self) -> dict[str, Any]:
        """The warnings and tables, as `dataset.json` keeps them."""
        return {
            "warnings": list(self.warnings),
            "tables": {name: table.to_dict() for name, table in self.table.items()},
        }


def check_data(
    config: Config,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    purpose: Purpose | None = None,
    place_labels: PlaceLabels | None = None,
    least_side: int | None = None,
) -> Findings:
    """Read all files of a study and find all that is wrong with them, at once.

    Args:
        workers: threads that read; None for one a CPU, at most 8. Large files are read
            one at a time whatever their number, so that memory stays bounded.
        progress: called after each case with the cases done and the cases in all.
        purpose: which splits to try out; None for those of either, where they apply.
        place_labels: `model.labels.find_merging`, which knows what the forgiving loss needs.
        least_side: of an image, in voxels; None for what the configured network needs.
    """
    cases, faults = discover(config.datasets)
    strays = len(faults)
    faults += _without_patterns(config)
    faults = labelling_faults(config, place_labels) + faults
    examined = _examine_all(cases, _rules(config, least_side), workers, progress)
    faults += [fault for one in examined for fault in one.faults]
    facts = {one.case.id: one.facts for one in examined if one.facts is not None}
    faults += _same_image(cases, facts)
    faults += _split_faults(config, cases, purpose, strays > 0)
    sound = [case for case in cases if case.id in facts]
    table = tables(sound, facts, config.datasets)
    remarks = remarks_on(cases, facts, table, config)
    return Findings(tuple(cases), tuple(_once(faults)), tuple(remarks), table, facts)


def _without_patterns(config: Config) -> Iterator[Fault]:
    for name, dataset in config.datasets.datasets.items():
        if not dataset.patterns:
            yield Fault(
                f"datasets.datasets.{name}.patterns",
                "is empty, so that no image is found",
                "one pattern for each contrast and side",
                "Add one: NAME: {mri: '**/*_t2.nii.gz', label: '*_seg.nii.gz'}.",
            )


def _rules(config: Config, least_side: int | None) -> dict[str, LabelRules]:
    """The network halves its input `num_levels - 1` times; a shorter side would be padding."""
    least = least_side or 2 ** (config.models.num_levels - 1)
    return {
        name: LabelRules(
            f"datasets.datasets.{name}.labels", dataset.labels, len(dataset.labels_names), least
        )
        for name, dataset in config.datasets.datasets.items()
    }


def _examine_all(
    cases: Sequence[Case],
    rules: Mapping[str, LabelRules],
    workers: int | None,
    progress: Progress | None,
) -> list[Examined]:
    """All cases, in their order. Reading, unpacking and sorting let go of Python's lock."""
    workers = workers or min(8, cpu_count())
    results: dict[str, Examined] = {}
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore")  # numpy's and nibabel's on damaged files; faults say more
        jobs = {pool.submit(examine, case, rules[case.dataset]): case for case in cases}
        for done, job in enumerate(as_completed(jobs), start=1):
            results[jobs[job].id] = _result(job, jobs[job])
            if progress is not None:
                progress(done, len(jobs))
    return [results[case.id] for case in cases]


def _result(job: Future[Examined], case: Case) -> Examined:
    try:
        return job.result()
    except MemoryError:
        found = "needs more memory to be read than is free"
        todo = "Crop it to the hippocampus, or read fewer files at a time (--workers 1)."
        return Examined(case, (Fault(str(case.mri), found, "a crop", todo),), None)


def _same_image(cases: Iterable[Case], facts: Mapping[str, CaseFacts]) -> Iterator[Fault]:
    """One image under two subjects would be trained on and validated on."""
    first: dict[str, Case] = {}
    for case in cases:
        if case.id not in facts:
            continue
        other = first.setdefault(facts[case.id].image_hash, case)
        if other.subject != case.subject:
            yield Fault(
                str(case.mri),
                f"is the same image as {other.mri}, voxel for voxel, but of another subject"
                f" ({case.subject} and {other.subject})",
                "an image of its own for each subject",
                "Leave one out, or give both one subject (datasets.datasets.<name>.subject).",
            )


def _split_faults(
    config: Config, cases: Sequence[Case], purpose: Purpose | None, some_missing: bool
) -> Iterator[Fault]:
    """What the splits say when they are tried out; they are drawn again where they are used."""
    if not cases:
        return
    search = purpose == "search" or (purpose is None and not config.datasets.train_on_all)
    tries: list[Callable[[], object]] = []
    if search and not (purpose is None and config.datasets.allow_subject_overlap):
        tries.append(lambda: make_splits(cases, config.search, config.datasets, config.seed))
    if purpose != "search":
        tries.append(lambda: finetune_split(cases, config.datasets, config.seed))
    counted = " (Counted without the files at fault above.)" if some_missing else ""
    for split in tries:
        try:
            split()
        except DataError as error:
            for line in str(error).splitlines():
                yield Sentence("datasets (splits)", line + counted, "", "")


def _once(faults: Iterable[Fault]) -> list[Fault]:
    return list(dict.fromkeys(faults))
