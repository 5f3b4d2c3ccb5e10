"""`sync-mlflow outputs/NAME`: rebuild a run's MLflow runs from its records.

Not while the run is going on. Repeating it changes nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from hsf_tune.cli.shell import Screen
from hsf_tune.config import TrackingConfig
from hsf_tune.run_folder import RunFolder
from hsf_tune.stored_run import read_stored
from hsf_tune.tracking import address_for, sync_folder


def sync(args: argparse.Namespace, _: Sequence[str], console: Screen) -> int:
    """Send what MLflow lacks; the exit code, 1 where something could not be sent."""
    has_config = RunFolder(args.folder).config.exists()
    noted = read_stored(args.folder).config.tracking if has_config else TrackingConfig()
    noted = replace(noted, experiment=args.experiment or noted.experiment)
    config = address_for(noted, args.uri)
    left = sync_folder(args.folder, config)
    if not left:
        console.say(f"All of {args.folder} is in MLflow at {config.uri}.")
    return 1 if left else 0
