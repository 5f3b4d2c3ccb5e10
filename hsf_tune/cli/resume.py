"""Go on with a run: what it was started with, and that its data are still the same.

Configuration and space come from the run's own folder. The command line may change what
does not touch a trial's numbers: how much is tried, how long, and with which resources.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hsf_tune.config import Config, config_from_dict
from hsf_tune.errors import ConfigError, DataError

CHANGEABLE = "--strategies-per-arm, --time-budget, --no-confirm, --max-concurrent, --address"
_NAMED = 8  # cases, or runs, that a message lists before it says how many more there are


def read_resumed(
    name: str, output: str | None, flags: Mapping[str, Any], overrides: Sequence[str]
) -> tuple[Config, Path]:
    """The configuration that a run goes on with, and its folder.

    Args:
        flags: dotted keys of the flags that were given, None where not.
        overrides: what else the command line asks for; refused.

    Raises:
        ConfigError: there is no such run, or the command line would change its trials.
    """
    folder = Path(output or "outputs") / name
    if not (folder / "config.yaml").exists():
        found = sorted(p.parent.name for p in folder.parent.glob("*/trials.jsonl"))
        listed = f" Runs there: {', '.join(found[-_NAMED:])}." if found else ""
        raise ConfigError(f"--resume {name}: {folder} holds no run.{listed}")
    plain = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    config = config_from_dict({**plain, "name": name, "output": str(folder.parent)})
    changed = list(overrides)
    if flags.get("seed") not in (None, config.seed):
        changed.append(f"--seed {flags['seed']}, it was {config.seed}")
    if changed:
        raise ConfigError(
            f"--resume {name} goes on with the configuration that the run was started with"
            f" ({folder}/config.yaml); {'; '.join(changed)} would change its trials. Leave that"
            f" out, or start a new run. What may change: {CHANGEABLE}."
        )
    given = {k: v for k, v in flags.items() if k.startswith("search.") and v is not None}
    return config.with_values(given), folder


def require_same_data(folder: Path, now: Mapping[str, Any]) -> None:
    """Refuse to go on with other images, another base model or other splits.

    Args:
        now: what `describe_dataset` says of the data as they are.

    Raises:
        DataError: what differs, by name.
    """
    path = folder / "dataset.json"
    if not path.exists():
        raise DataError(f"{path} is missing; without it nobody knows what the run was made of.")
    then = json.loads(path.read_text(encoding="utf-8"))
    faults = [*_case_changes(then["cases"], now["cases"])]
    if then["base"]["sha256"] != now["base"]["sha256"]:
        faults.append(
            f"the base model is {now['base']['name']} ({now['base']['sha256'][:12]}), it was"
            f" {then['base']['name']} ({then['base']['sha256'][:12]})"
        )
    if not faults and then["key"] != now["key"]:
        faults.append("the images are preprocessed otherwise (labels, spacing or version)")
    if not faults and then["splits"] != json.loads(json.dumps(now["splits"])):
        faults.append("the splits differ")
    if faults:
        raise DataError(
            f"{folder.name} can't go on, its trials would not be comparable: {'; '.join(faults)}."
            " Bring back what was there, or start a new run."
        )


def _case_changes(then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[str]:
    before = {case["id"]: case["sha256"] for case in then}
    after = {case["id"]: case["sha256"] for case in now}
    groups = {
        "missing": [c for c in before if c not in after],
        "new": [c for c in after if c not in before],
        "changed": [c for c in before if c in after and before[c] != after[c]],
    }
    return [f"{what}: {_listed(cases)}" for what, cases in groups.items() if cases]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
