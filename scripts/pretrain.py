"""Train the demo's base model: from random weights, on drawn subjects of its own contrast.

    python scripts/pretrain.py --to hsf_tune/model/demo_base.safetensors

Takes some ten minutes on two cores. The training is the one of `finetune.py`, with all
blocks opening one after the other in the first epochs.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from hsf_tune.config import Config, config_from_dict
from hsf_tune.data.cases import find_cases
from hsf_tune.data.demo.tasks import TASKS, write_demo
from hsf_tune.data.splits import Split
from hsf_tune.finetuning.base import blocks_of, get_base
from hsf_tune.finetuning.fit import fit
from hsf_tune.finetuning.strategy import canonical
from hsf_tune.model.arunet import Architecture, ARUNet
from hsf_tune.model.weights import load_base, save
from hsf_tune.records import EpochEnded, Event, TrialSpec, label_means
from hsf_tune.run_folder import TrialFolder

LABELS = {1: "DG", 2: "CA1", 3: "CA2", 4: "CA3", 5: "SUB"}
ON_DISK = {210: 1, 206: 2, 207: 3, 208: 4, 205: 5, 212: 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--held-out", type=int, default=8, help="subjects that only validate")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="keep the data and the state of the run here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        train(args, work)


def train(args: argparse.Namespace, work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    config = _config(work, args)
    write_demo(work / TASKS["pretraining"].path, "pretraining")
    subjects = sorted({case.subject for case in find_cases(config.datasets)})
    split = Split("pretrain", 1, tuple(subjects[args.held_out :]), tuple(subjects[: args.held_out]))
    strategy = canonical({}, config, blocks_of(get_base(config)))
    spec = TrialSpec("pretrain", "pretrain", strategy, split, args.seed)
    ended = fit(config, spec, work / "run", _print_epoch, threads=args.threads)
    print(f"held-out Dice {ended.dice:.4f}", label_means(ended.scores))
    trained = load_base(TrialFolder(work / "run").final)
    network = ARUNet(trained.architecture)
    network.load_state_dict(trained.state_dict)
    save(
        args.to,
        network,
        {
            "name": "demo",
            "labels_names": LABELS,
            "training": {"subjects": "drawn, T2-like", "held_out_dice": round(ended.dice, 4)},
        },
    )


def _config(work: Path, args: argparse.Namespace) -> Config:
    random_base = work / "random.safetensors"
    if not random_base.exists():
        save(random_base, ARUNet(Architecture(f_maps=8)), {"name": "random"})
    contrast = TASKS["pretraining"].contrast
    patterns = {
        side: {
            "mri": f"**/*{contrast}w_hippocampus_{side}_crop.nii.gz",
            "label": f"*{contrast}w_hippocampus_{side}_seg_crop.nii.gz",
        }
        for side in ("left", "right")
    }
    dataset = {
        "path": TASKS["pretraining"].path,
        "ca_type": "1/2/3",
        "patterns": patterns,
        "labels": ON_DISK,
        "labels_names": LABELS,
    }
    return config_from_dict(
        {
            "datasets": {"main_path": str(work), "datasets": {"demo": dataset}},
            "models": {"checkpoint": str(random_base), "lr": args.lr},
            "finetuning": {"mode": "full", "unfreeze_frequency": 1},
            "lightning": {"max_epochs": args.epochs, "accelerator": "cpu"},
            "store": {"path": str(work / "store")},
        }
    )


def _print_epoch(event: Event) -> None:
    if isinstance(event, EpochEnded):
        m = event.metrics
        print(
            f"epoch {event.epoch:3d}  train {m['train_loss']:.4f}  val {m['val_loss']:.4f}"
            f"  Dice {m['val_dice']:.4f}  {m['epoch_seconds']:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
