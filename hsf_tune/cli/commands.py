"""The commands and their flags: all that can be typed, in one place.

`hsf-tune NAME` runs any of them; in a clone `python tune.py`, `python finetune.py` and
`python scripts/NAME.py` are the same.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from hsf_tune import __version__
from hsf_tune.cli.parser import Add, Command
from hsf_tune.errors import ConfigError, did_you_mean
from hsf_tune.installed import PROGRAM, typed
from hsf_tune.search.space_file import list_spaces

_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?")
_WHERE = "where MLflow is; default: the run's own, if it is hsf_tune's default"


def run(name: str, words: Sequence[str] | None = None) -> None:
    """Run one command and exit."""
    COMMANDS[name].run(typed(name), words)


def main(words: Sequence[str] | None = None) -> None:
    """`hsf-tune NAME ...`; exits."""
    given = list(sys.argv[1:] if words is None else words)
    if given and given[0] in COMMANDS:
        run(given[0], given[1:])
    about = "\n".join(f"  {name:<12} {command.about}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [-h] [--version] COMMAND ...",
        description="Find the best way to finetune HSF's hippocampal subfield segmentation.",
        epilog=f"commands:\n{about}\n\n{PROGRAM} COMMAND --help says more of each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    if given and not given[0].startswith("-"):
        parser.error(f"no command {given[0]}.{did_you_mean(given[0], COMMANDS)}")
    parser.parse_args(given or ["--help"])
    parser.error(f"expected a command first. {', '.join(COMMANDS)}")


def _tune(add: Add) -> None:
    _overrides(add)
    add("--space", metavar="NAME_OR_PATH", help="search space; default: default")
    add(
        "--list-spaces", action=_ListSpaces, nargs=0, help="show the spaces that come with the tool"
    )
    add("--dry-run", action="store_true", help="show what would run, and for how long; run nothing")
    add("--name", help="of the run; default: tune-SPACE-DATASET-TIME")
    add("--output", metavar="DIR", help="folder of all runs; default: outputs")
    add("--resume", metavar="NAME", help="go on with an interrupted run")
    add("--retry-failed", action="store_true", help="with --resume: also trials that failed")
    add("--strategies-per-arm", type=int, metavar="N", help="strategies that each arm tries")
    add("--time-budget", type=_seconds, metavar="2h",
        help="stop after this time; what was cut can go on with --resume")  # fmt: skip
    add("--no-confirm", action="store_true", help="skip the comparison of the finalists")
    add("--max-concurrent", type=int, metavar="N", help="trials at a time; default: what fits")
    add("--cpus-per-trial", type=float, metavar="X", help="CPU threads of a trial; default: 1")
    add("--gpus-per-trial", type=float, metavar="X", help="share of a GPU; default: measured")
    add("--address", metavar="ADDR", help="of an existing Ray cluster, or 'auto'")
    add("--seed", type=int, metavar="N", help="default: 42")


def _finetune(add: Add) -> None:
    _overrides(add)
    add("--name", help="of the run; default: finetune-DATASET-TIME")
    add("--output", metavar="DIR", help="folder of all runs; default: outputs")
    add("--seed", type=int, metavar="N", help="default: 42")
    add("--threads", type=int, metavar="N", help="CPU threads; default: all cores")


def _check(add: Add) -> None:
    _overrides(add)
    add("--output", metavar="DIR", help="folder of table and sheets; default: outputs/check-NAME")
    add("--workers", type=int, metavar="N", help="threads that read; default: one a CPU")
    add("--no-sheets", action="store_true", help="don't draw the cases")


def _export(add: Add) -> None:
    add("run", type=Path, metavar="outputs/NAME", help="folder of a finished search or finetuning")
    add("--as", dest="kind", choices=("single", "bag"), default="single",
        help="single: trained once more on every subject outside the test set (default);"
        " bag: an odd number of the search's fold models")  # fmt: skip
    add("--strategy", type=Path, metavar="FILE", help="another strategy than the recommended one")
    add("--to", type=Path, metavar="DIR", help="default: datasets.output_path/NAME, models/NAME")
    add("--name", metavar="NAME", help="of the models; default: the run's")
    add("--threads", type=int, metavar="N", help="CPU threads; default: as the strategy's trials")
    add("--tracking-uri", metavar="URI", help=_WHERE)
    add("--no-tracking", action="store_true", help="don't log and register the models in MLflow")


def _predict(add: Add) -> None:
    add("model", metavar="MODEL_OR_RUN", help="model file, exported folder, or outputs/NAME")
    add("mri", type=Path, nargs="+", metavar="mri.nii.gz", help="crops of one hippocampus each")
    add("--to", type=Path, metavar="DIR", help="for the results; default: beside each image")
    add("--tta", type=int, default=1, metavar="N", help="views a crop is seen in; default: 1")
    add("--uncertainty", action="store_true", help="also write a map from 0 (sure) to 1")
    add("--reference", type=Path, nargs="+", metavar="seg.nii.gz", help="one for each image")
    add("--dataset", metavar="NAME", help="whose labels the references have; default: the first")
    add("--overwrite", action="store_true", help="replace results that exist")
    add("--threads", type=int, metavar="N", help="CPU threads; default: all cores")
    add("--seed", type=int, default=0, metavar="N", help="of the random views; default: 0")


def _report(add: Add) -> None:
    add("folder", type=Path, metavar="outputs/NAME", help="the run's folder")
    add("others", type=Path, nargs="*", metavar="outputs/OTHER", help="runs to compare it with")


def _crop(add: Add) -> None:
    add("--mri", required=True, metavar="PATTERN", help="whole-head MRI; quote it")
    add("--label", required=True, metavar="PATTERN",
        help="label map in the MRI's folder; may hold {stem}, {subject}, {side}")  # fmt: skip
    add("--to", required=True, type=Path, metavar="DIR", help="for the crops and their YAML")
    add("--preset", choices=("corot2", "t2iso"), default="t2iso",
        help="HSF's roiloc=default_PRESET that you will use: t2iso for isotropic voxels (default),"
        " corot2 for thick coronal slices")  # fmt: skip
    add("--contrast", choices=("t1", "t2"), default="t2", help="of the MRI; default: t2")
    add("--left", metavar="1-7", help="label values of the left side, where one file has both")
    add("--right", metavar="101-107", help="of the right side, in the same order")
    add("--names", metavar="DG,CA1,...",
        help="of the labels: in the order of --left, else by rising value")  # fmt: skip
    add("--subject", metavar="REGEX", help="its first group in the MRI's path is the subject;"
        " default: sub-NAME, else the first folder that --mri leaves open")  # fmt: skip
    add("--name", default="crops", help="of the dataset; default: crops")
    add("--mask", default="*mask.nii.gz", metavar="PATTERN",
        help="brain mask in the MRI's folder, as HSF; default: *mask.nii.gz")  # fmt: skip


def _fetch(add: Add) -> None:
    add("names", nargs="*", default=["hsf"], metavar="NAME",
        help="hsf, bag_0 to bag_4, all, or an https address; default: hsf")  # fmt: skip
    add("--checksum", help="xxh3_64 or sha256 of the file at an address")


def _sync(add: Add) -> None:
    add("folder", type=Path, metavar="outputs/NAME", help="the run's folder")
    add("--tracking-uri", "--uri", dest="uri", metavar="URI", help=_WHERE)
    add("--experiment", metavar="NAME", help="default: the run's")


class _ListSpaces(argparse.Action):
    """Shows the spaces and exits, as `--help` does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        for name, about in list_spaces().items():
            print(f"{name:<10} {about}")
        parser.exit()


def _overrides(add: Add) -> None:
    add("overrides", nargs="*", metavar="key=value",
        help="datasets=NAME or datasets=FILE.yaml, and any other setting")  # fmt: skip
    add("--config-dir", type=Path, metavar="DIR", help="folder with datasets/NAME.yaml of yours")


def _seconds(text: str) -> float:
    """'2h', '90m', '1h30m' or '45s' in seconds."""
    match = _TIME.fullmatch(text.strip().lower())
    if match is None or not any(match.groups()):
        raise ConfigError(
            f"--time-budget {text or 'is empty'}: expected a time such as 2h, 90m or 1h30m."
        )
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


COMMANDS = {
    "tune": Command(
        "Search for the best way to finetune HSF's segmentation network on your data.",
        "hsf_tune.cli.search:tune",
        _tune,
        """examples:
  %(prog)s --space quick                                  # the bundled demo, some minutes
  %(prog)s --space default datasets=/data/study/dataset.yaml --dry-run
  %(prog)s --space default datasets=/data/study/dataset.yaml --time-budget 8h
  %(prog)s --space default datasets=custom_dataset datasets.main_path=/data/hsf \\
      finetuning.out_channels=8 models.use_forgiving_loss=False
  %(prog)s --resume NAME                                  # go on after any interruption
  %(prog)s --resume NAME --strategies-per-arm 20          # try more; the rest stays as it was
""",
    ),
    "finetune": Command(
        "Finetune HSF's segmentation network once, with one strategy.",
        "hsf_tune.cli.training:finetune",
        _finetune,
        """examples:
  %(prog)s
  %(prog)s finetuning.mode=encoder finetuning.depth=2 models.lr=3e-3
  %(prog)s datasets=custom_dataset datasets.main_path=/data/hsf \\
      finetuning.out_channels=8 models.lr=1e-3 models.use_forgiving_loss=False
  %(prog)s datasets=/data/hsf/my_dataset.yaml
  %(prog)s strategy=outputs/NAME/best_strategy.yaml      # repeat a search's winner
A run that was stopped goes on when it is called again with the same --name.
""",
    ),
    "check": Command(
        "Check a dataset before anything trains on it: read every file, list every fault with what"
        " to do about it, and draw every case with its labels.",
        "hsf_tune.cli.check:check",
        _check,
        """examples:
  %(prog)s datasets=/data/hsf/my_dataset.yaml
  %(prog)s datasets=custom_dataset datasets.main_path=/data/hsf \\
      finetuning.out_channels=8 models.use_forgiving_loss=False

Give the overrides that you would give to a search or a finetuning: the labels are checked against
the network's channels, and the splits are tried out. Warnings do not stop a run. The exit code
is 1 if there is any fault, else 0.
""",
    ),
    "export": Command(
        "Export a run's recommended strategy as models that the hsf command uses.",
        "hsf_tune.cli.export:export",
        _export,
        """examples:
  %(prog)s outputs/NAME                    # trained once more, on every subject
  %(prog)s outputs/NAME --as bag           # the fold models, which vote
  %(prog)s outputs/NAME --to /shared/models/mine
""",
    ),
    "predict": Command(
        "Segment crops of a hippocampus; results lie on each image's own grid.",
        "hsf_tune.cli.predict:segment",
        _predict,
        """examples:
  %(prog)s outputs/NAME sub-*/left_crop.nii.gz
  %(prog)s models/NAME crop.nii.gz --tta 20 --uncertainty
  %(prog)s models/NAME crop.nii.gz --reference crop_seg.nii.gz --to results
""",
    ),
    "report": Command(
        "Write report.html and report.json of a run again, or compare runs.",
        "hsf_tune.cli.report:report",
        _report,
        """examples:
  %(prog)s outputs/NAME
  %(prog)s outputs/NAME outputs/OTHER
""",
    ),
    "crop": Command(
        "Cut whole-head MRI and labels into the crops that HSF will show the network.",
        "hsf_tune.cli.crop:crop",
        _crop,
        """examples:
  # one label map a head, 1-7 on the left and 101-107 on the right
  %(prog)s --mri '/data/study/sub-*/anat/*_T2w.nii.gz' --label '{stem}_dseg.nii.gz' \\
      --left 1-7 --right 101-107 --to /data/study_crops
  # one label map a side
  %(prog)s --mri '/data/sub-*/t1.nii.gz' --label '{stem}_{side}_seg.nii.gz' \\
      --contrast t1 --to /data/crops
""",
    ),
    "fetch": Command(
        "Download base models beforehand, for machines without a network.",
        "hsf_tune.cli.fetch:fetch_models",
        _fetch,
        """examples:
  %(prog)s                    # HSF's published model, which a run starts from
  %(prog)s all                # and the five models that the hsf command uses
  %(prog)s https://example.org/base.ckpt --checksum sha256:...

Then runs without a network find them: models.checkpoint=hsf, or the address and its
models.checksum. The cache is $HSF_TUNE_CACHE, else your user's cache folder; it has to be one
that the compute nodes see.
""",
    ),
    "sync-mlflow": Command(
        "Rebuild a run's MLflow runs from its records, once it is over; repeating it changes nothing.",
        "hsf_tune.cli.sync_mlflow:sync",
        _sync,
        """examples:
  %(prog)s outputs/NAME
  %(prog)s outputs/NAME --tracking-uri sqlite:///mlflow.db
""",
    ),
}
