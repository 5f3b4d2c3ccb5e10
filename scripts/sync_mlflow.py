"""Rebuild a run's MLflow runs from its records.   python scripts/sync_mlflow.py outputs/NAME

Not while the run is going on. Repeating it changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from hsf_tune.config import TrackingConfig
from hsf_tune.errors import HsfTuneError
from hsf_tune.run_folder import RunFolder
from hsf_tune.stored_run import read_stored
from hsf_tune.tracking import address_for, sync_folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the run: outputs/NAME")
    about = "where MLflow is; default: tracking.uri of the run, if it is hsf_tune's default"
    parser.add_argument("--tracking-uri", "--uri", dest="uri", metavar="URI", help=about)
    parser.add_argument("--experiment", help="default: the run's")
    given = parser.parse_args()
    try:
        has_config = RunFolder(given.folder).config.exists()
        noted = read_stored(given.folder).config.tracking if has_config else TrackingConfig()
        noted = replace(noted, experiment=given.experiment or noted.experiment)
        config = address_for(noted, given.uri)
        left = sync_folder(given.folder, config)
    except HsfTuneError as error:
        print(error, file=sys.stderr)
        return 1
    if not left:
        print(f"All of {given.folder} is in MLflow at {config.uri}.")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
