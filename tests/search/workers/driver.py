"""Run a small search as a process of its own, to be killed: python driver.py FOLDER SETTINGS."""

import json
import sys
from pathlib import Path

import small_search

from hsf_tune.records import Records
from hsf_tune.search.run import run_search


def main(folder, settings):
    config = small_search.make_config(**json.loads(settings))
    space = small_search.make_space(config=config)
    outcome = run_search(
        space.config,
        space,
        small_search.make_splits(confirm=config.search.confirm_folds),
        Path(folder),
        Records(folder),
        base_comparable=True,
        trainer="trivial_trainer",
    )
    print(outcome.status, flush=True)
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
