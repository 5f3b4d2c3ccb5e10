"""Find labels to look at again, and show the middling, the best and the worst case.

Where all finalists agree with each other and not with the manual label, the manual label
may be the one that errs. Only voxels further than one voxel from the agreed label's
manual border count: along borders every rater differs.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from hsf_tune import figures
from hsf_tune.data.cases import Case, find_cases
from hsf_tune.data.store import Store, open_store
from hsf_tune.errors import HsfTuneError, RunError
from hsf_tune.figures.palette import label_color
from hsf_tune.model.labels import free_labels
from hsf_tune.records import TrialRecord, subject_means
from hsf_tune.report.page import encoded
from hsf_tune.report.run import Run
from hsf_tune.strategy import describe, strategy_key

Labels = NDArray[np.uint8]
PLANES = ("sagittal", "coronal", "axial")  # axes of a RAS+ volume
SHOWN = 6  # places drawn
LISTED = 12  # places listed


@dataclass(frozen=True)
class Place:
    """A slice where all finalists contradict the manual labels.

    Attributes:
        axis, index: the slice, of the case's unpadded RAS+ volume.
        volume_mm3: contradicted volume in the whole case, for this label.
        agreed, manual: names of the label the finalists see and of the one that was drawn most
            often there.
    """

    case: str
    agreed: str
    manual: str
    axis: int
    index: int
    volume_mm3: float


@dataclass(frozen=True)
class Picture:
    """An image as it is written into the page."""

    caption: str
    source: str


@dataclass(frozen=True)
class Middle:
    """The case of middling Dice: two pictures, and the colours of their labels."""

    case: str
    pictures: Sequence[Picture]
    colors: Mapping[str, str]


@dataclass(frozen=True)
class Review:
    """What to look at; `missing` says why there is nothing."""

    places: Sequence[Place] = ()
    place_pictures: Sequence[Picture] = ()
    case_pictures: Sequence[Picture] = ()
    middle: Middle | None = None
    missing: str = ""


def review(run: Run) -> Review:
    """Rank the places of a run and draw the first ones, and the best and worst case."""
    trials = [t for t in run.trials if t.started.phase == "confirm" and _has_predictions(run, t)]
    if not trials:
        return Review(missing="No predictions of finalists were kept in this run's folder.")
    try:
        cases = {c.id: c for c in find_cases(run.config.datasets)}
        store = open_store(list(cases.values()), run.config.datasets, run.config.store)
    except HsfTuneError as error:
        return Review(missing=f"The images can't be read here: {error}")
    if run.dataset.get("key", store.key) != store.key:
        return Review(missing="The images have changed since the run; none is shown beside it.")
    scene = _Scene(run, cases, store)
    try:
        ranked, voted = scene.ranked_cases(), scene.agreed_labels(trials)
    except RunError as error:
        return Review(missing=str(error))
    places = sorted(scene.places(voted), key=lambda p: -p.volume_mm3)
    return Review(
        places=places[:LISTED],
        place_pictures=[scene.draw_place(p, voted[p.case]) for p in places[:SHOWN]],
        case_pictures=list(scene.draw_extremes(ranked)),
        middle=scene.draw_middle(ranked),
    )


def contradictions(agreed: Labels, known: NDArray[np.bool_], manual: Labels) -> Labels:
    """Label that all agree on where it contradicts the manual one, 0 elsewhere.

    Args:
        agreed: (X, Y, Z) the label that all predictions share.
        known: (X, Y, Z) where they do share one.
        manual: (X, Y, Z).

    Returns:
        (X, Y, Z); a voxel within one voxel of the same manual label is 0. Agreed background
        does not count: whether tissue was drawn too generously is what Dice shows.
    """
    wrong = known & (agreed != manual) & (agreed > 0)
    found = np.where(wrong, agreed, 0).astype(np.uint8)
    for label in np.unique(found[found > 0]):
        near = binary_dilation(manual == label, np.ones((3, 3, 3), dtype=bool))
        found[(found == label) & near] = 0
    return found


@dataclass(frozen=True, eq=False)
class Predicted:
    """A case out of fold under one strategy."""

    case: str
    dice: float
    strategy: Mapping[str, Any]
    labels: Labels


@dataclass(frozen=True)
class _Scene:
    """The images and labels that pictures are made of."""

    run: Run
    cases: Mapping[str, Case]
    store: Store

    def agreed_labels(self, trials: Sequence[TrialRecord]) -> dict[str, tuple[Labels, Any]]:
        """case -> (label all finalists share, where they share one); of two finalists or more."""
        finalists = self.run.confirmation.finalists.values()
        confirmed = {c.key for members in finalists for c in members}
        found: dict[str, tuple[Labels, Any]] = {}
        voters: dict[str, set[str]] = {}
        for trial in trials:
            voter = strategy_key(trial.started.strategy)
            if voter not in confirmed:
                continue
            for case, predicted in _predictions(self.run, trial).items():
                if case not in self.cases:
                    continue
                voters.setdefault(case, set()).add(voter)
                if case in found:
                    first, known = found[case]
                    found[case] = first, known & (first == predicted)
                else:
                    found[case] = predicted, np.ones(predicted.shape, dtype=bool)
        return {case: voted for case, voted in found.items() if len(voters[case]) > 1}

    def places(self, voted: Mapping[str, tuple[Labels, Any]]) -> Iterator[Place]:
        for case, (agreed, known) in voted.items():
            manual, spacing = self.manual(case), self.store.load(case).spacing_mm
            if manual.shape != agreed.shape:
                continue
            names = {0: "background", **self.names(case)}
            wrong = contradictions(agreed, known & ~np.isin(manual, self.free(names)), manual)
            for label in np.unique(wrong[wrong > 0]):
                voxels = wrong == label
                axis, index = _fullest_slice(voxels)
                drawn = int(np.bincount(manual[voxels]).argmax())
                volume = float(voxels.sum() * np.prod(spacing))
                agreed_name = names.get(int(label), str(label))
                yield Place(case, agreed_name, names.get(drawn, str(drawn)), axis, index, volume)

    def free(self, names: Mapping[int, str]) -> tuple[int, ...]:
        """Labels that may hide any subfield, as the network was trained."""
        return free_labels(names) if self.run.config.models.use_forgiving_loss else ()

    def draw_place(self, place: Place, voted: tuple[Labels, Any]) -> Picture:
        """What all finalists share there, under the borders of the manual labels."""
        caption = (
            f"{place.case}, {PLANES[place.axis]} slice {place.index}: all finalists see"
            f" {place.agreed}, the manual label is {place.manual} ({place.volume_mm3:.0f} mm³)"
        )
        agreed = np.where(voted[1], voted[0], 0)
        return self.snapshot(caption, place.case, agreed, (place.axis, place.index))

    def ranked_cases(self) -> list[Predicted]:
        """The recommended strategy's cases, lowest Dice first; the best one's, if none is kept."""
        verdict = self.run.verdict
        best = verdict.winner.strategy if verdict.winner else {}
        chosen = verdict.recommendation.strategy or best
        cases = self.predicted(chosen) or self.predicted(best)
        return sorted(cases.values(), key=lambda p: p.dice)

    def predicted(self, strategy: Mapping[str, Any]) -> dict[str, Predicted]:
        """case -> its Dice and labels under a strategy, where they were kept and the case fits."""
        cases: dict[str, Predicted] = {}
        for trial in self.run.trials_of(strategy, "confirm"):
            if not trial.ended or not _has_predictions(self.run, trial):
                continue
            for case, labels in _predictions(self.run, trial).items():
                rows = [s for s in trial.ended.scores if s.case == case]
                dice = next(iter(subject_means(rows).values()), float("nan"))
                fits = case in self.cases and labels.shape == self.manual(case).shape
                if fits and np.isfinite(dice):
                    cases.setdefault(case, Predicted(case, dice, strategy, labels))
        return cases

    def draw_middle(self, ranked: Sequence[Predicted]) -> Middle | None:
        """The middling case before finetuning and after; beside its manual labels, if the base
        has none of these labels."""
        if not ranked:
            return None
        after = ranked[len(ranked) // 2]
        manual = self.manual(after.case)
        before = self.predicted({}).get(after.case)
        first = self.snapshot("Manual labels", after.case, manual)
        if before is not None:
            text = f"Unchanged base: Dice {before.dice:.2f}"
            first = self.snapshot(text, after.case, before.labels)
        last = self.snapshot(f"Finetuned: Dice {after.dice:.2f}", after.case, after.labels)
        names, present = self.names(after.case), np.unique(manual[manual > 0]).tolist()
        colors = {names.get(label, str(label)): label_color(label) for label in present}
        return Middle(after.case, (first, last), colors)

    def draw_extremes(self, ranked: Sequence[Predicted]) -> Iterator[Picture]:
        """The case with the highest Dice and the one with the lowest."""
        extremes = [("Best", ranked[-1]), ("Worst", ranked[0])] if len(ranked) > 1 else []
        for word, shown in extremes:
            text = f"{word} case of {describe(shown.strategy)}: {shown.case}, Dice {shown.dice:.3f}"
            yield self.snapshot(text, shown.case, shown.labels)

    def snapshot(
        self, caption: str, case: str, labels: Labels, through: tuple[int, int] | None = None
    ) -> Picture:
        """Labels of a case, filled in under the borders of the manual ones."""
        spacing = self.store.load(case).spacing_mm
        drawn = figures.snapshot(self.image(case), labels, self.manual(case), spacing, through)
        return Picture(caption, encoded(drawn, dots_per_inch=200))

    def image(self, case: str) -> NDArray[Any]:
        stored = self.store.load(case)
        return np.asarray(stored.image)[0][stored.crop]

    def manual(self, case: str) -> Labels:
        stored = self.store.load(case)
        return np.asarray(stored.labels)[stored.crop]

    def names(self, case: str) -> dict[int, str]:
        return dict(self.run.config.datasets.datasets[self.cases[case].dataset].labels_names)


def _has_predictions(run: Run, trial: TrialRecord) -> bool:
    return run.files.trial(trial.id).predictions.exists()


def _predictions(run: Run, trial: TrialRecord) -> dict[str, Labels]:
    """A trial's predictions, by case.

    Raises:
        RunError: the file can't be read, or leads out of the run's folder.
    """
    path = run.files.trial(trial.id).predictions
    run.files.inside(path.relative_to(run.folder))
    try:
        with path.open("rb") as file, np.load(file) as kept:
            return {case: kept[case] for case in kept.files}
    except (OSError, ValueError, EOFError, AttributeError, BadZipFile, zlib.error) as error:
        raise RunError(
            f"{path} can't be read ({error}); no predictions are shown. Remove it, and the report"
            " shows those of the other trials."
        ) from error


def _fullest_slice(voxels: NDArray[np.bool_]) -> tuple[int, int]:
    """(axis, index) of the slice that holds most of these voxels."""
    counts = [voxels.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    axis = int(np.argmax([c.max() for c in counts]))
    return axis, int(counts[axis].argmax())
