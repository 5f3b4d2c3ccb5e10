"""Rebuild a run's MLflow runs from its records.   python scripts/sync_mlflow.py outputs/NAME

Not while the run is going on. Repeating it changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import yaml

from hsf_tune.config import TrackingConfig
from hsf_tune.errors import HsfTuneError
from hsf_tune.tracking import sync_folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the run: outputs/NAME")
    parser.add_argument("--uri", help="where MLflow is; default: tracking.uri of config.yaml")
    parser.add_argument("--experiment", help="default: tracking.experiment of config.yaml")
    given = parser.parse_args()
    file = given.folder / "config.yaml"
    plain = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
    config = TrackingConfig(**plain.get("tracking", {}))
    config = replace(
        config,
        uri=given.uri or config.uri,
        experiment=given.experiment or config.experiment,
    )
    try:
        left = sync_folder(given.folder, config)
    except HsfTuneError as error:
        print(error, file=sys.stderr)
        return 1
    if not left:
        print(f"All of {given.folder} is in MLflow at {config.uri}.")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
