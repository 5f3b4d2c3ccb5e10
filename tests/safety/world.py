"""A small world with files that no command may touch: a study, a home, work, others' files.

    python tests/safety/world.py FOLDER        # lays it there, to be looked at

The folder's name should be short: sockets below its `tmp/` have names of at most 107 bytes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sqlite3
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import yaml

TESTS = Path(__file__).parents[1]
MARKER = "notes of mine.txt"  # in every folder
KEPT_NAMES = ("cases", "hsf_tune-cases", "checkpoints", "export", "models", "figures", "data")
RUN_NAMES = (  # of a run's files; here they are somebody's own, in a folder that holds no run
    "config.yaml", "space.yaml", "dataset.json", "best_strategy.yaml", "scores.csv", "trials.csv",
    "report.html", "report.json", "check.json",
)  # fmt: skip
CLOSED = "http://127.0.0.1:9"  # nobody listens
SPACE = """lightning.max_epochs: 1
search.strategies_per_arm: 1
search.n_startup_trials: 1
search.folds: 2
search.keep: [1]
search.confirm: false
arms:
  head:
    finetuning.depth: 0
    models.lr: {log: [1.0e-3, 1.0e-1]}
"""
Stamp = tuple[int, str]  # time of change, and what is in it


@dataclass(frozen=True)
class World:
    """Where things are; `root` holds all of them."""

    root: Path

    def __getattr__(self, name: str) -> Path:
        return self.root / name  # study, home, work, elsewhere, tmp, cache

    @property
    def secrets(self) -> list[Path]:
        """What others' files name, and nobody asked to be read."""
        return [
            self.home / ".ssh" / "id_key",
            self.elsewhere / "secret.yaml",
            Path("/etc/hostname"),
        ]

    def files(self) -> dict[Path, Stamp]:
        """Everything there is, folders left out; links are not followed."""
        paths = (Path(at) / name for at, folders, names in os.walk(self.root)
                 for name in (*names, *folders))  # fmt: skip
        return {path: stamp for path in paths if (stamp := _stamp(path)) is not None}

    def guarded(self) -> dict[Path, Stamp]:
        """Of what was laid: all but the files of runs, which reports and resumes may renew."""
        runs = self.work / "outputs"
        return {
            path: stamp
            for path, stamp in self.files().items()
            if path.name == MARKER or not path.is_relative_to(runs) or "other" in path.parts
        }


def lay(root: Path) -> World:
    """Make the world in an empty folder."""
    world = World(root.resolve())
    for name in ("home", "work", "elsewhere", "tmp", "cache"):
        (world.root / name).mkdir(parents=True)
    _lay_study(world)
    _lay_keys(world)
    _lay_project(world.work / "project")
    _lay_project(world.study / "project")
    other = world.work / "outputs" / "other"  # not a run, though it lies among them
    _lay_project(other)
    _lay_files_of_others(world)
    _lay_runs_of_others(world)
    for folder in (world.study, world.home, world.work, world.elsewhere, world.tmp, world.cache):
        _lay_kept(folder)
    for at, _, _ in list(os.walk(world.root)):
        (Path(at) / MARKER).write_text(f"kept: {at}\n")
    _make_old(world.root)
    return world


def _lay_study(world: World) -> None:
    tests = _module(TESTS / "conftest.py")
    rng = np.random.default_rng(0)
    for number in range(1, 5):
        tests.write_subject(world.study / "balls", number, rng)
    tests.write_subject(world.elsewhere / "balls", 1, rng)
    sides = ("left", "right")
    dataset = {
        "path": "balls",
        "ca_type": "1/2/3",
        "patterns": {s: {"mri": f"**/{s}_mri.nii.gz", "label": f"{s}_seg.nii.gz"} for s in sides},
        "labels": {1: 1, 2: 2},
        "labels_names": tests.LABELS,
    }
    plain = {"main_path": ".", "datasets": {"balls": dataset}}
    (world.study / "study.yaml").write_text(yaml.safe_dump(plain))
    (world.work / "space.yaml").write_text(SPACE)
    network = tests.ARUNet(tests.Architecture(f_maps=2, out_channels=3))
    tests.save(world.study / "base.safetensors", network, {"name": "tiny"})


def _lay_keys(world: World) -> None:
    (world.home / ".ssh").mkdir()
    (world.home / ".ssh" / "id_key").write_text("a key\n")
    (world.elsewhere / "secret.yaml").write_text("password: a secret\n")
    (world.home / ".cache" / "hsf_tune" / "cases" / "sub-01").mkdir(parents=True)


def _lay_kept(folder: Path) -> None:
    """Folders whose names a careless program takes for its own, with what one would remove."""
    for name in KEPT_NAMES:
        kept = folder / name
        kept.mkdir(exist_ok=True)
        for file in ("mine.ckpt", "mine.safetensors", "manifest.json", "differences.png", "stop"):
            (kept / file).write_text("mine\n")
    entry = folder / "hsf_tune-cases" / ("0f" * 16)  # named as the cache's, without its mark
    entry.mkdir()
    (entry / "manifest.json").write_text("{}")
    (entry / "scan.nii.gz").write_bytes(bytes(2000))


def _lay_project(folder: Path) -> None:
    """Somebody's own work under the names of a run's files."""
    (folder / "checkpoints" / "finetune-1").mkdir(parents=True)
    (folder / "checkpoints" / "finetune-1" / "last.ckpt").write_text("mine\n")
    for name in RUN_NAMES:
        (folder / name).write_text("mine: 1\n")
    connection = sqlite3.connect(folder / "optuna.db")
    connection.execute("create table mine (value)")
    connection.commit()
    connection.close()


def _lay_files_of_others(world: World) -> None:
    """Datasets and strategies that name places, addresses, secrets."""
    plain = yaml.safe_load((world.study / "study.yaml").read_text())
    plain["main_path"] = str(world.study)
    away, key = str(world.elsewhere), str(world.home / ".ssh" / "id_key")
    changes = {
        "store": {"store": {"path": away, "limit_gb": 1e-6}},
        "tracking": {"tracking": {"uri": CLOSED}},
        "address": {"search": {"address": "127.0.0.1:9"}},
        "state": {"search": {"state_dir": away}},
        "output": {"output": away, "name": "data"},
        "models": {"output_path": f"{away}/models", "models": {"checkpoint": key}},
        "env": {"output_path": "${oc.env:HOME}"},
        "path": {"main_path": key},
        "label": {"datasets": {"balls": _led_out(plain, away)}},
    }
    folder = world.elsewhere / "given"
    folder.mkdir()
    for name, change in changes.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**plain, **change}))


def _led_out(plain: dict, away: str) -> dict:
    led = {"mri": "../../**/left_mri.nii.gz", "label": f"{away}/secret.yaml"}
    return {**plain["datasets"]["balls"], "patterns": {"left": led}}


def _lay_runs_of_others(world: World) -> None:
    """Folders of runs that came by mail, each with something that leads out of it."""
    from hsf_tune.config import config_from_dict

    report = _module(TESTS / "report" / "conftest.py")
    away, outputs = world.elsewhere, world.work / "outputs"
    plain = yaml.safe_load((world.study / "study.yaml").read_text())
    plain |= {"main_path": str(world.study), "output_path": str(away / "models")}
    base = str(world.study / "base.safetensors")
    config = config_from_dict(
        {
            "datasets": plain,
            "models": {"checkpoint": base, "out_channels": 3, "use_forgiving_loss": False},
            "finetuning": {"out_channels": 3},
            "store": {"path": str(away), "limit_gb": 1e-6},
            "tracking": {"uri": CLOSED},
            "search": {"state_dir": str(away)},
        }
    ).to_dict()
    for name in ("theirs", "events", "ids", "links", "records", "weights"):
        report.write_run(outputs / name, n_subjects=4, arms=("decoder", "head"))
        (outputs / name / "config.yaml").write_text(yaml.safe_dump(config))
    key = str(world.home / ".ssh" / "id_key")
    ended = {"event": "trial_ended", "status": "finished", "figures": [key, "../../../elsewhere"],
             "best_checkpoint": key, "last_checkpoint": "/etc/hostname"}  # fmt: skip
    started = json.loads((outputs / "ids" / "trials.jsonl").read_text().splitlines()[1])
    _add(outputs / "events", {**ended, "trial": started["trial"]})
    _add(outputs / "ids", {**started, "trial": "../../../../elsewhere/checkpoints"})
    _link_out(outputs / "links", away)
    (outputs / "weights" / "checkpoints").symlink_to(away / "checkpoints")
    (outputs / "records" / "trials.jsonl").rename(away / "records.jsonl")
    (outputs / "records" / "trials.jsonl").symlink_to(away / "records.jsonl")


def hand_over(world: World) -> None:
    """The run `mine` of a finetuning as others may hand it back: changed, and unfinished."""
    outputs, away = world.work / "outputs", world.elsewhere
    for name in ("handed", "unfinished"):
        shutil.copytree(outputs / "mine", outputs / name)
        plain = yaml.safe_load((outputs / name / "config.yaml").read_text())
        plain["store"] = {"path": str(away), "limit_gb": 1e-9}
        plain["tracking"] |= {"uri": CLOSED, "enabled": True}
        plain["datasets"]["output_path"] = str(away / "models")
        plain["search"]["state_dir"] = str(away)
        (outputs / name / "config.yaml").write_text(yaml.safe_dump(plain))
    _link_out(outputs / "handed", away)
    records = (outputs / "unfinished" / "trials.jsonl").read_text().splitlines(keepends=True)
    left = "".join(line for line in records if '"trial_ended"' not in line)
    (outputs / "unfinished" / "trials.jsonl").write_text(left)
    (outputs / "unfinished" / "best_strategy.yaml").unlink()


def _link_out(run: Path, away: Path) -> None:
    """Every place of a run that is written to, led to somebody's files."""
    for name in ("figures", "export"):
        (run / name).symlink_to(away / name)
    for name in (".lock", "optuna.db", "report.html", "scores.csv", "contact-sheet-balls.png"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(away / "secret.yaml")


def _add(folder: Path, event: dict) -> None:
    with (folder / "trials.jsonl").open("a") as records:
        records.write(json.dumps(event) + "\n")


def _make_old(root: Path) -> None:
    """A change shows in the time, too; and what is old is what a cache removes first."""
    for at, folders, names in os.walk(root):
        for name in (*names, *folders):
            os.utime(Path(at) / name, (1.6e9, 1.6e9), follow_symlinks=False)


def _stamp(path: Path) -> Stamp | None:
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode):
        return None
    if stat.S_ISLNK(status.st_mode):
        return status.st_mtime_ns, f"-> {os.readlink(path)}"
    if not stat.S_ISREG(status.st_mode):
        return status.st_mtime_ns, "no file"
    return status.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()


def _module(path: Path) -> ModuleType:
    """Of a test folder, which are no packages."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_conftest", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    lay(Path(sys.argv[1]))
