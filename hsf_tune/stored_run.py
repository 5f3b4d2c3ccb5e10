"""Read the folder of a run: what it is made of, and what its records hold.

What goes on with a run, starts from it or reports it begins here, each with what it needs beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hsf_tune.config import Config, StoreConfig, config_of_run
from hsf_tune.errors import RunError
from hsf_tune.records import Records
from hsf_tune.run_folder import RunFolder


@dataclass(frozen=True)
class StoredRun:
    """A run as its folder holds it.

    Attributes:
        config: as it was resolved at the start.
        command: as the user typed it; '' where unknown.
        dataset: `dataset.json`; {} where it is missing.
    """

    folder: Path
    config: Config
    command: str
    dataset: Mapping[str, Any]
    records: Records

    @property
    def files(self) -> RunFolder:
        return self.records.files

    @property
    def name(self) -> str:
        return self.files.name

    def as_given(self) -> StoredRun:
        """Without the places that its folder names: it may be someone else's, and is only read."""
        search = replace(self.config.search, address=None, state_dir=None)
        return replace(self, config=replace(self.config, store=StoreConfig(), search=search))


def read_stored(folder: Path | str) -> StoredRun:
    """Read a run's folder, whether the run goes on or is over.

    Raises:
        RunError: there is no run in it, or one of its files can't be read.
        ConfigError: its configuration holds what no configuration may.
    """
    files = RunFolder(folder)
    if not files.is_run or not files.config.exists():
        raise RunError(
            f"{files.path} holds no run: expected {files.config.name} and {files.records.name}, as"
            f" a search and a finetuning write them. Give the folder of a run, for example"
            f" outputs/NAME.{files.runs_beside}"
        )
    return StoredRun(
        files.path,
        config_of_run(files.read_config()),
        files.read_command(),
        files.read_dataset(),
        Records(files.path),
    )
