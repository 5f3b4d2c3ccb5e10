"""Run folders as a search would leave them, with invented scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

from hsf_tune.config import config_from_dict
from hsf_tune.data.cases import find_cases
from hsf_tune.data.store import open_store
from hsf_tune.records import (
    EpochEnded,
    Event,
    Records,
    Score,
    TrialEnded,
    TrialStarted,
    Versions,
)
from hsf_tune.report import read_run

LABELS = ("DG", "CA1", "CA2", "CA3", "SUB")
BLOCKS = {
    "encoder": [f"encoders.{i}" for i in range(4)],
    "decoder": [f"decoders.{i}" for i in (2, 1, 0)],
}
BLOCKS["full"] = BLOCKS["decoder"] + BLOCKS["encoder"][::-1]
GAINS = {"encoder": 0.05, "decoder": 0.012, "full": 0.02, "head": -0.01}
EPOCHS = 20
DEFAULT = {
    "finetuning.mode": "decoder",
    "finetuning.depth": 3,
    "finetuning.unfreeze_frequency": 4,
    "lightning.max_epochs": EPOCHS,
    "models.lr": 1e-3,
}


def strategies_of(arm: str, rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
    """Canonical strategies of an arm; the documented default is the decoder's first."""
    found: list[dict[str, Any]] = [DEFAULT] if arm == "decoder" else []
    while len(found) < count:
        lr = float(10 ** rng.uniform(-4, -1.5))
        if arm == "head":
            found.append({"finetuning.depth": 0, "lightning.max_epochs": EPOCHS, "models.lr": lr})
            continue
        frequency = int(rng.choice([1, 2, 4]))
        depth = int(rng.integers(1, min(len(BLOCKS[arm]), EPOCHS // frequency - 1) + 1))
        found.append(
            {
                "finetuning.mode": arm,
                "finetuning.depth": depth,
                "finetuning.unfreeze_frequency": frequency,
                "lightning.max_epochs": EPOCHS,
                "models.lr": lr,
            }
        )
    return found


class Searched:
    """An invented search: subjects, strategies with their true gains, and trials of them."""

    def __init__(self, n_subjects: int, arms: tuple[str, ...], seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.arms = arms
        self.subjects = [f"demo/sub-{i:02d}" for i in range(1, n_subjects + 1)]
        self.difficulty = dict(
            zip(self.subjects, self.rng.normal(0.78, 0.03, n_subjects), strict=True)
        )
        self.offsets = dict(zip(LABELS, (0.03, 0.05, -0.06, -0.04, 0.02), strict=True))
        self.strategies = {a: strategies_of(a, self.rng, 4 if a == "head" else 8) for a in arms}
        self.gains: dict[str, float] = {json.dumps({}): -0.08}
        self.own: dict[tuple[str, str], float] = {}
        for arm, chosen in self.strategies.items():
            for s in chosen:
                rate = abs(np.log10(s["models.lr"]) + 2.6)
                gain = GAINS[arm] - 0.015 * rate + self.rng.normal(0, 0.004)
                self.gains[json.dumps(s, sort_keys=True)] = float(gain)

    def trial(
        self, phase: str, arm: str, strategy: Mapping[str, Any], name: str, fold: int,
        seed: int, validate: list[str],
    ) -> Iterator[Event]:  # fmt: skip
        depth, frequency = strategy.get("finetuning.depth", 0), 1
        blocks = BLOCKS.get(str(strategy.get("finetuning.mode")), [])[:depth]
        frequency = strategy.get("finetuning.unfreeze_frequency", 1)
        openings = {"final_conv": 0} | {b: (i + 1) * frequency for i, b in enumerate(blocks)}
        parameters = 9000 + 85_000 * len(blocks) if strategy else 0
        train = [s for s in self.subjects if s not in validate]
        yield TrialStarted(
            name, phase, arm, strategy, fold, seed, EPOCHS if strategy else 0, train, validate,
            opening_epochs=openings if strategy else {}, parameters_trained=parameters, device="cpu",
        )  # fmt: skip
        scores = list(self.scores(strategy, validate, volumes=True, surface=phase == "confirm"))
        dice = float(np.mean([s.value for s in scores if s.metric == "dice"]))
        for epoch in range(EPOCHS if strategy else 0):
            done = 1 - np.exp(-epoch / 5)
            metrics = {
                "train_loss": 0.6 - 0.35 * done + self.rng.normal(0, 0.004),
                "val_loss": 0.62 - 0.3 * done + self.rng.normal(0, 0.006),
                "val_dice": dice - 0.2 * (1 - done),
                "open_blocks": min(depth, epoch // frequency),
                "epoch_seconds": 1.5,
            }
            yield EpochEnded(name, epoch, {k: float(v) for k, v in metrics.items()})
        seconds = 30 + 6.0 * depth + float(self.rng.uniform(0, 4)) if strategy else 2.0
        epochs = EPOCHS if strategy else 0
        yield TrialEnded(name, "finished", dice, dice, 18, epochs, seconds, parameters, scores)

    def scores(
        self, strategy: Mapping[str, Any], validate: list[str], volumes: bool, surface: bool
    ) -> Iterator[Score]:
        key = json.dumps(dict(strategy), sort_keys=True)
        luck = self.rng.normal(0, 0.003)
        for subject in validate:
            own = self.own.setdefault((key, subject), float(self.rng.normal(0, 0.008)))
            for side in ("left", "right"):
                case = f"{subject.replace('/', '--')}--{side}"
                for label in LABELS:
                    dice = self.difficulty[subject] + self.gains[key] + own + luck
                    dice += self.offsets[label] + self.rng.normal(0, 0.006)
                    yield Score(subject, case, label, "dice", float(dice))
                    if volumes:
                        manual = 300 + 900 * (self.offsets[label] + 0.07) * (
                            1 + 3 * (self.difficulty[subject] - 0.78)
                        )
                        predicted = manual * 1.03 + self.rng.normal(0, 6)
                        yield Score(subject, case, label, "volume_mm3", float(predicted))
                        yield Score(subject, case, label, "reference_volume_mm3", float(manual))
                    if surface:
                        yield Score(subject, case, label, "surface_dice", float(dice) + 0.1)
                        yield Score(subject, case, label, "hd95_mm", 1.4 + float(dice))

    def exploration(self) -> Iterator[Event]:
        folds = [self.subjects[i::4] for i in range(4)]
        yield from self.trial("explore", "base", {}, "explore-base-f1", 1, 42, folds[0])
        for arm, chosen in self.strategies.items():
            ranked = list(enumerate(chosen, start=1))
            for fold, kept in enumerate((len(ranked), 6, 3, 3), start=1):
                ranked = sorted(
                    ranked, key=lambda m: -self.gains[json.dumps(m[1], sort_keys=True)]
                )[: 1 if arm == "head" and fold > 1 else kept]
                for number, strategy in ranked:
                    name = f"explore-{arm}-{number:03d}-f{fold}"
                    yield from self.trial("explore", arm, strategy, name, fold, 42, folds[fold - 1])

    def confirmation(self) -> Iterator[Event]:
        folds = [self.subjects[i::5] for i in range(5)]
        roles: list[tuple[str, str, Mapping[str, Any]]] = [("base", "base", {})]
        for arm, chosen in self.strategies.items():
            best = sorted(chosen, key=lambda s: -self.gains[json.dumps(s, sort_keys=True)])
            for strategy in best[: 1 if arm == "head" else 3]:
                number = chosen.index(strategy) + 1
                roles.append((f"{arm}-{number:03d}", arm, strategy))
        if all(s != DEFAULT for _, _, s in roles):
            roles.append(("documented_default", "documented_default", DEFAULT))
        for seed in (42, 43):
            for fold, validate in enumerate(folds, start=1):
                for label, arm, strategy in roles:
                    if strategy or seed == 42:
                        name = f"confirm-{label}-f{fold}" + (f"-s{seed}" if strategy else "")
                        yield from self.trial("confirm", arm, strategy, name, fold, seed, validate)


def write_run(
    folder: Path, *, n_subjects: int = 14, confirm: bool = True, explore: bool = True,
    arms: tuple[str, ...] = ("encoder", "decoder", "full", "head"), seed: int = 0,
    main_path: str = "/data/demo",
) -> Searched:  # fmt: skip
    """Write the files of a finished (or, without `confirm`, of an explored) search."""
    searched = Searched(n_subjects, arms, seed)
    config = config_from_dict(
        {
            "store": {"path": str(folder / "store")},
            "datasets": {
                "main_path": main_path,
                "datasets": {
                    "demo": {
                        "path": "demo",
                        "ca_type": "1/2/3",
                        "patterns": {
                            side: {
                                "mri": f"sub-*/{side}.nii.gz",
                                "label": f"{side}_seg.nii.gz",
                            }
                            for side in ("left", "right")
                        },
                        "labels": {i: i for i in range(1, 6)},
                        "labels_names": dict(enumerate(LABELS, start=1)),
                    }
                },
            },
        }
    )
    records = Records(folder)
    records.extend([Versions({"python": "3.11.7", "torch": "2.13.0"})])
    if explore:
        records.extend(searched.exploration())
    if confirm:
        records.extend(searched.confirmation())
    text = yaml.safe_dump(config.to_dict(), sort_keys=False)
    (folder / "config.yaml").write_text(
        f"# The configuration of this run, resolved.\n# command: tune.py --space default\n{text}"
    )
    (folder / "space.yaml").write_text(
        yaml.safe_dump({"arms": {arm: {} for arm in arms}}, sort_keys=False)
    )
    cases = [
        {"id": f"{s.replace('/', '--')}--{side}", "dataset": "demo", "subject": s, "pattern": side}
        for s in searched.subjects
        for side in ("left", "right")
    ]
    dataset = {
        "key": "0f" * 32,
        "base": {"name": "demo", "sha256": "ab" * 32},
        "cases": cases,
        "splits": {"test": [], "notes": []},
        "warnings": ["demo/sub-03 left: the voxels are 0.4 x 0.4 x 2.0 mm <thick>."],
    }
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return searched


@pytest.fixture
def run_writer() -> Callable[..., Searched]:
    return write_run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with its confirmation, read only."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    write_run(folder)
    return folder


@pytest.fixture(scope="session")
def explored_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that was not confirmed."""
    folder = tmp_path_factory.mktemp("runs") / "explored"
    write_run(folder, confirm=False)
    return folder


def manual_labels(seed: int) -> np.ndarray:
    """(24, 20, 22) five slabs of labels in a box."""
    labels = np.zeros((24, 20, 22), dtype=np.uint8)
    for i in range(5):
        labels[4 + 3 * i : 7 + 3 * i, 5:15, 6:16] = i + 1
    labels[4:7, 5:6, 6:16] = seed % 2
    return labels


@pytest.fixture(scope="session")
def run_with_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A confirmed search whose images are there and whose finalists' predictions were kept.

    In sub-03's left case a block of 4 x 4 x 3 voxels was drawn as background where all
    finalists see CA3 (far from CA3's border); elsewhere they predict the manual labels.
    """
    root = tmp_path_factory.mktemp("images")
    folder = root / "run"
    searched = write_run(folder, n_subjects=6, main_path=str(root / "data"))
    rng = np.random.default_rng(0)
    predicted = {}
    for i, subject in enumerate(searched.subjects):
        place = root / "data" / "demo" / subject.split("/")[1]
        place.mkdir(parents=True)
        for side in ("left", "right"):
            labels = manual_labels(i)
            image = labels * 10.0 + rng.normal(0, 2, labels.shape)
            affine = np.diag([0.5, 0.5, 0.8, 1.0])
            nib.save(nib.Nifti1Image(image.astype(np.float32), affine), place / f"{side}.nii.gz")
            nib.save(nib.Nifti1Image(labels, affine), place / f"{side}_seg.nii.gz")
            case = f"{subject.replace('/', '--')}--{side}"
            predicted[case] = labels.copy()
            if (i, side) == (2, "left"):
                predicted[case][8:12, 14:18, 18:21] = 4
    described = json.loads((folder / "dataset.json").read_text())
    config = read_run(folder).config
    store = open_store(find_cases(config.datasets), config.datasets, config.store)
    (folder / "dataset.json").write_text(json.dumps(described | {"key": store.key}))
    for trial in Records(folder).trials.values():
        if trial.started.phase == "confirm":
            kept = folder / "checkpoints" / trial.id
            kept.mkdir(parents=True)
            shift = 0 if trial.started.strategy else 2
            cases = {s.case: np.roll(predicted[s.case], shift, 2) for s in trial.ended.scores}
            np.savez_compressed(kept / "predictions.npz", **cases)
    return folder
