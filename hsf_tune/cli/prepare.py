"""What `tune.py` and `finetune.py` do before anything trains.

Name the base model, check the data, hand out the run's folder, and write down what the
run is made of. What goes wrong here is the user's to mend and costs no training.
"""

from __future__ import annotations

import datetime
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hsf_tune import __version__
from hsf_tune.cli.findings import gate
from hsf_tune.cli.shell import Screen
from hsf_tune.config import Config, ModelsConfig
from hsf_tune.credentials import redacted
from hsf_tune.data.cache import cache_folder, fingerprints
from hsf_tune.data.cases import Case
from hsf_tune.data.checks.sheets import draw_sheets
from hsf_tune.data.checks.study import Findings, Purpose
from hsf_tune.data.demo.tasks import ensure_demo
from hsf_tune.data.store import Store, open_store
from hsf_tune.errors import ConfigError
from hsf_tune.finetuning.base import blocks_of, describe_base, get_base
from hsf_tune.finetuning.evaluate import case_losses
from hsf_tune.model.weights import BaseModel
from hsf_tune.records import Event, Records, Versions
from hsf_tune.run_folder import RunFolder
from hsf_tune.tracking import MlflowTracker

PACKAGES = (
    "torch", "pytorch-lightning", "torchio", "nibabel", "monai", "ray", "optuna", "mlflow", "numpy",
)  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """Everything that is known before training.

    Attributes:
        blocks: mode -> number of blocks the base model can open.
        findings: what the data gate found, without faults; its warnings have been shown.
    """

    config: Config
    base: BaseModel
    blocks: dict[str, int]
    findings: Findings
    store: Store

    @property
    def cases(self) -> list[Case]:
        """In discovery order."""
        return list(self.findings.cases)


def prepare(config: Config, console: Screen, purpose: Purpose) -> Prepared:
    """Load the base model, find and check the cases, and build or open their store.

    Raises:
        HsfTuneError: the base model or the data can't be used; one message with all faults.
    """
    base = get_base(config)
    console.print(describe_base(base))
    _note_other_architecture(config, base, console)
    if config.datasets.base == "demo":
        paths = {name: d.path for name, d in config.datasets.datasets.items()}
        ensure_demo(config.datasets.main_path, paths)
    findings = gate(config, console, purpose=purpose, least_side=base.architecture.multiple_of)
    case_losses(config)
    cases = list(findings.cases)
    store = open_store(cases, config.datasets, config.store)
    subjects = len({c.subject for c in cases})
    console.print(f"Data: {len(cases)} cases of {subjects} subjects")
    return Prepared(config, base, blocks_of(base), findings, store)


def _note_other_architecture(config: Config, base: BaseModel, console: Screen) -> None:
    """Say that a value can't be had that is neither the base's nor the one written in `conf/`."""
    for key in ("f_maps", "num_levels", "layer_order", "use_attention"):
        asked, found = getattr(config.models, key), getattr(base.architecture, key)
        if asked not in (found, getattr(ModelsConfig, key)):
            console.say(
                f"models.{key}={asked} has no effect: the base model has {found}, and finetuning"
                " keeps its architecture. Choose another with models.checkpoint.",
                "Note",
            )


def new_run_folder(config: Config, kind: str) -> tuple[str, Path]:
    """The name and folder of a new run: `<output>/<name>`, the name from the time if not given."""
    name = config.name
    if name is None:
        first = next(iter(config.datasets.datasets))
        safe = re.sub(r"[^A-Za-z0-9]+", "-", first)[:40].strip("-") or "data"
        name = f"{kind}-{safe}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    return name, Path(config.output) / name


def write_run_files(
    folder: Path,
    config: Config,
    prepared: Prepared,
    splits: dict[str, Any],
    command: str,
    *,
    draw: bool = True,
) -> None:
    """`config.yaml`, `dataset.json` and contact sheets: what the run is made of."""
    files = RunFolder(folder)
    with files.writing():
        files.write_config(config.to_dict(), redacted(command))
        files.write_dataset(describe_dataset(prepared, splits))
        if draw:
            draw_sheets(prepared.findings, prepared.config, folder)


def describe_dataset(prepared: Prepared, splits: dict[str, Any]) -> dict[str, Any]:
    """Cases, fingerprints, splits, warnings and tables, as `dataset.json` holds them."""
    prints, hashes = prepared.store.fingerprints, file_hashes(prepared)
    return {
        "key": prepared.store.key,
        "base": {"name": prepared.base.name, "sha256": prepared.base.sha256},
        "cases": [
            {
                "id": c.id,
                "dataset": c.dataset,
                "subject": c.subject,
                "pattern": c.pattern,
                "side": c.side,
                "mri": str(c.mri),
                "label": str(c.label),
                "sha256": prints[c.id],
                "mri_sha256": hashes[c.mri],
                "label_sha256": hashes[c.label],
            }
            for c in prepared.cases
        ],
        "splits": splits,
        **prepared.findings.to_dict(),
    }


def file_hashes(prepared: Prepared) -> dict[Path, str]:
    """sha256 of every image and label map; what was hashed before is not read again."""
    paths = [path for case in prepared.cases for path in (case.mri, case.label)]
    return fingerprints(paths, cache_folder(prepared.config.store.path))


def versions() -> dict[str, str]:
    """Of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version(), "hsf_tune": __version__}
    return found | {name: version(name) for name in PACKAGES}


def note_versions(records: Records) -> None:
    """Write down what the run is computed with, again where it goes on with something else."""
    found = versions()
    known = records.noted(Versions)
    if not known or dict(known[-1].versions) != found:
        records.append(Versions(found, text="what this run is computed with"))


def write_through(
    records: Records, observers: Sequence[Callable[[Event], None]]
) -> Callable[[Event], None]:
    """An `on_event` that records an event first and then tells the observers."""

    def on_event(event: Event) -> None:
        records.append(event)
        for observer in observers:
            observer(event)

    return on_event


def start_tracking(
    config: Config,
    folder: Path,
    name: str,
    records: Records,
    console: Screen,
    *,
    nested: bool,
) -> MlflowTracker | None:
    """A tracker that has caught up with the records, or None where tracking is off.

    Raises:
        TrackingError: MLflow can't be reached and `tracking.required` is set.
    """
    if not config.tracking.enabled:
        return None

    def say(text: str) -> None:
        console.print(text)

    tracker = MlflowTracker(config.tracking, folder, name=name, nested=nested, say=say)
    tracker.check_reachable()
    tracker.sync(records)
    return tracker


def require_new(folder: Path, name: str) -> None:
    """Refuse to write into a run that exists; one that was stopped before any trial does not.

    Raises:
        ConfigError: the folder holds trials already.
    """
    if Records(folder).trials:
        raise ConfigError(
            f"{folder} holds a run already; nothing was changed. Choose another --name, or go on"
            f" with it: --resume {name}."
        )
