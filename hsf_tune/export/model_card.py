"""A model card: what a network was made from, how well it does, and what it is not for.

Numbers come from the run's own files; nothing is scored here. What only the owner of the
data can say (the licence, the population) is left as a field to fill in.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hsf_tune.export.labels import LabelSet
from hsf_tune.export.onnx_file import OnnxFile
from hsf_tune.finetuning.finished import EXPORT, FinishedRun, TrainedModel
from hsf_tune.finetuning.strategy import SavedStrategy
from hsf_tune.records import label_means, subject_means
from hsf_tune.strategy import strategy_key

FILL_IN = "(to be filled in by the owner of the data)"


def model_card(
    run: FinishedRun,
    saved: SavedStrategy,
    models: Sequence[TrainedModel],
    files: Sequence[OnnxFile],
    labels: LabelSet,
    name: str,
) -> str:
    """The text of `model_card.md`, in Markdown with the front matter that model hubs read."""
    kind = "one network" if len(models) == 1 else f"a bag of {len(models)} networks that vote"
    return "\n".join(
        [
            "---",
            "license: other  # fill in: the licence under which you pass this model on",
            "tags: [mri, hippocampus, segmentation, hsf]",
            "---",
            f"# {name}",
            "",
            f"HSF's attention residual U-Net, finetuned from {saved.base_name}: {kind}, for crops"
            " of one hippocampus.",
            "",
            *_section("Data", _data(run, models)),
            *_section("Labels", _labels(labels)),
            *_section("Strategy", _strategy(saved)),
            *_section("Scores", _scores(run, saved, models)),
            *_section("Files", _files(files)),
            *_section("Versions", _versions(run, saved)),
            *_section("Limits", _limits(run, labels)),
        ]
    )


def _section(title: str, lines: Iterable[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _data(run: FinishedRun, models: Sequence[TrainedModel]) -> list[str]:
    cases = run.dataset.get("cases", [])
    test = run.test_subjects
    rows = []
    for dataset in run.config.datasets.datasets:
        own = [c for c in cases if c["dataset"] == dataset]
        patterns = ", ".join(f"{n} {p}" for p, n in Counter(c["pattern"] for c in own).items())
        people = len({c["subject"] for c in own})
        rows.append(f"- {dataset}: {people} subjects, {len(own)} crops ({patterns})")
    trained = sorted({len(set(m.train)) for m in models})
    counts = " to ".join(dict.fromkeys([str(trained[0]), str(trained[-1])]))
    each = "Trained" if len(models) == 1 else "Each network was trained"
    return [
        *rows,
        f"- {each} on {counts} subjects; {len(test) or 'no'} subjects are locked away as a test set.",
        f"- Fingerprint of images and labels: {run.dataset.get('key', 'unknown')}",
        f"- Population, scanners, consent: {FILL_IN}",
    ]


def _labels(labels: LabelSet) -> list[str]:
    table = ["| value | label |", "|---|---|"]
    table += [f"| {value} | {name} |" for value, name in labels.outputs.items()]
    note = {
        "1/23": "The network has CA2 and CA3 apart; HSF adds them up, as no label told them apart.",
        "123": "The network has CA1, CA2 and CA3 apart; HSF adds them up, as no label told them"
        " apart.",
    }
    extra = note.get(labels.ca_mode) if labels.hsf_channels else None
    return [*table, *(["", extra] if extra else [])]


def _strategy(saved: SavedStrategy) -> list[str]:
    settings = [f"- {key}: {value}" for key, value in saved.strategy.items()]
    why = [f"- chosen because: {saved.reason}"] if saved.reason else []
    return [
        f"{saved.strategy.describe().capitalize()}.",
        "",
        *settings,
        f"- seed: {saved.seed}, precision: {saved.precision}",
        f"- base model: {saved.base_name}, sha256 {saved.base_sha256}",
        *why,
    ]


def _scores(run: FinishedRun, saved: SavedStrategy, models: Sequence[TrainedModel]) -> list[str]:
    report = _report(run)
    confirmed = _confirmed(report, saved)
    lines = []
    if confirmed is not None:
        mean, interval, n = confirmed
        low, high = interval or (math.nan, math.nan)
        lines.append(
            f"Dice of this strategy, confirmed on subjects that its networks had not seen:"
            f" {mean:.3f} (95 % interval {low:.3f} to {high:.3f}, {n} subjects)."
        )
    else:
        lines += _own_scores(run, saved)
    verdict = report.get("verdict", {}).get("sentence")
    if verdict:
        lines += ["", f"Verdict of the search: {verdict}"]
    by_label = report.get("recommendation", {}).get("labels")
    if by_label and confirmed is not None:
        lines += ["", "| label | Dice |", "|---|---|"]
        lines += [f"| {k} | {v:.3f} |" for k, v in by_label.items() if v is not None]
    if len(models) == 1 and models[0].phase == EXPORT:
        lines += [
            "",
            "This network was trained once more with that strategy on all subjects outside the test"
            " set. It has no score of its own: the ones above are those of the same strategy on"
            " fewer subjects.",
        ]
    return lines


def _confirmed(
    report: Mapping[str, Any], saved: SavedStrategy
) -> tuple[float, list[float] | None, int] | None:
    """Mean, interval and number of subjects, where the report speaks of this very strategy."""
    recommended = report.get("recommendation", {})
    mean = recommended.get("confirmed_dice_mean")
    same = strategy_key(recommended.get("strategy", {})) == saved.strategy.key
    if mean is None or not same:
        return None
    interval, n = recommended.get("confirmed_dice_ci95"), recommended.get("n_subjects", 0)
    return float(mean), interval, int(n)


def _own_scores(run: FinishedRun, saved: SavedStrategy) -> list[str]:
    """Means over the validation subjects of the strategy's trials, where nothing was confirmed."""
    key = saved.strategy.key
    scores = [
        score
        for record in run.records.trials.values()
        if record.finished and record.ended and record.started.strategy.key == key
        for score in record.ended.scores
    ]
    means = list(subject_means(scores).values())
    if not means:
        return ["This strategy was not scored: no subject was kept for validation."]
    return [
        f"Dice on the validation subjects of this strategy's trials: {sum(means) / len(means):.3f}"
        f" ({len(means)} subjects). Not confirmed on other folds, so it may flatter.",
        "",
        "| label | Dice |",
        "|---|---|",
        *(f"| {name} | {value:.3f} |" for name, value in label_means(scores).items()),
    ]


def _files(files: Sequence[OnnxFile]) -> list[str]:
    rows = [
        f"| {f.path.name} | {f.size_bytes / 1e6:.1f} MB | {f.xxh3_64} |"
        f" {max(p.largest_difference for p in f.parity):.1e} |"
        for f in files
    ]
    return [
        "| file | size | xxh3_64 | largest difference from PyTorch |",
        "|---|---|---|---|",
        *rows,
        "",
        "Input: one crop (1, 1, X, Y, Z), RAS+ at its own voxel size, z-normalised over the crop,"
        " padded with zeros to multiples of 8. Output: probabilities, background first.",
    ]


def _versions(run: FinishedRun, saved: SavedStrategy) -> list[str]:
    origin = saved.origin or run.dataset.get("versions", {})
    return [f"- {package}: {version}" for package, version in origin.items()] or ["- not noted"]


def _limits(run: FinishedRun, labels: LabelSet) -> list[str]:
    datasets = ", ".join(run.config.datasets.datasets)
    return [
        "- For research. Not a medical device.",
        f"- Trained on crops like those of {datasets}; other contrasts, resolutions or guidelines"
        " were not tried.",
        "- Images and labels of the subjects are not part of this model, but a network can memorise"
        " parts of what it was trained on; check what your ethics approval says about sharing it.",
        f"- Licence of the base model and of the data: {FILL_IN}",
    ]


def _report(run: FinishedRun) -> dict[str, Any]:
    return run.files.read_summary()
