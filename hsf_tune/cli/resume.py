"""Go on with a run: what it is made of, and what may not have changed since it began.

Scores of one run are compared with each other, so its configuration, search space, base
model and images stay as they were; a difference is shown and refused. What only decides
where and how fast trials run may change. The run's own `config.yaml`, `space.yaml` and
`dataset.json` say what it is made of; a note in its records says what they held when it
began, so that an edited file is found out.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsf_tune.cli.compose import Overrides, compose_config, make_paths_absolute
from hsf_tune.cli.prepare import Prepared, file_hashes
from hsf_tune.config import Config, TrackingConfig, config_from_dict, config_of_run, set_values
from hsf_tune.data.splits import Split, Splits
from hsf_tune.errors import ConfigError, RunError
from hsf_tune.records import Configured
from hsf_tune.run_folder import RunFolder
from hsf_tune.search.space import Space
from hsf_tune.search.space_file import constants_of, read_space
from hsf_tune.stored_run import StoredRun, read_stored
from hsf_tune.tracking import is_known

MORE = "search.strategies_per_arm"  # may be raised, and only raised
MAY_CHANGE = {
    "name",
    "output",
    MORE,
    "search.time_budget_s",
    "search.max_concurrent",
    "search.cpus_per_trial",
    "search.gpus_per_trial",
    "search.address",
    "search.state_dir",
    "search.max_retries",
    "search.keep_checkpoints",
    "datasets.main_path",  # of files that moved; their content is compared
    "datasets.output_path",
    "datasets.num_workers",
    "datasets.pin_memory",
    "lightning.activation_checkpointing",
}  # and all of tracking and store
OF_ONE_PROCESS = ("search.address", "search.time_budget_s")  # a resume does not inherit them
_GROUPS_THAT_MAY = ("tracking.", "store.")
_SHOWN = 20  # differences that an error lists


@dataclass(frozen=True)
class Earlier(StoredRun):
    """A run to go on with; its configuration is under the run's name and place."""

    @property
    def noted(self) -> Configured | None:
        """What the run is made of, as last noted; None where it is not."""
        return next(reversed(self.records.noted(Configured)), None)

    @property
    def splits(self) -> Splits:
        """The splits that were drawn when the search began."""
        return Splits.from_dict(self.dataset["splits"])


def open_earlier(folder: Path) -> Earlier:
    """Read the folder of a run that was begun.

    Raises:
        RunError: there is no run, it was stopped before it began, or a file of it can't be read.
    """
    files = RunFolder(folder)
    if files.is_run and files.records.stat().st_size == 0:
        raise RunError(
            f"--resume {folder.name}: the run was stopped before anything trained. Start it again"
            f" with the command it was started with, and --name {folder.name}."
        )
    stored = read_stored(folder)
    try:
        _read_through(stored.dataset)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{files.dataset} lacks what a run goes on with ({type(error).__name__}: {error}). Bring"
            " the file back from a copy, or start a new run under another --name."
        ) from None
    place = {"name": folder.name, "output": str(folder.parent)}
    return Earlier(**{**vars(stored), "config": stored.config.with_values(place)})


def _read_through(dataset: Mapping[str, Any]) -> None:
    """Take all of `dataset.json` that is used later, for the errors of doing so."""
    splits, base = dataset["splits"], dataset["base"]
    _ = dataset["key"], base["name"], base["sha256"]
    _ = [(case["id"], case["mri"], case["sha256"]) for case in dataset["cases"]]
    _ = Split.from_dict(splits["finetune"]) if "finetune" in splits else Splits.from_dict(splits)


def asked_for(
    earlier: Earlier,
    overrides: Overrides,
    flags: Mapping[str, Any],
    config_dir: Path | None = None,
) -> Config:
    """The run's configuration with what the command line says laid over it.

    Raises:
        ConfigError: the command line can't be understood, or names a strategy file.
    """
    if overrides.strategy is not None:
        raise ConfigError(f"--resume {earlier.name} goes on with its own strategies, not a file's.")
    plain = set_values(earlier.config.to_dict(), dict.fromkeys(OF_ONE_PROCESS))
    given = {key: value for key, value in flags.items() if value is not None}
    if overrides.groups:
        constants = constants_of(read_space(earlier.files.space))
        composed, _ = compose_config(
            overrides, space_constants=constants, flags=given, config_dir=config_dir
        )
        plain |= {group: composed.to_dict()[group] for group in overrides.groups}
    plain = set_values(plain, {**overrides.values, **given})
    make_paths_absolute(plain)
    config = config_from_dict(plain)
    named = "tracking" in overrides.groups or "tracking.uri" in overrides.values
    if tracking_word(config) and not named:
        raise ConfigError(
            f"{earlier.name} is tracked at {config.tracking.uri}, as its folder says. If that"
            f" address is yours, go on with {tracking_word(config)}; else with"
            f" tracking.uri={TrackingConfig.uri} or tracking.enabled=false."
        )
    return config


def tracking_word(config: Config) -> str:
    """What a resumed run needs on the command line to go on being tracked elsewhere than by
    default; '' where it isn't. An address out of a folder alone is not called."""
    tracking = config.tracking
    elsewhere = tracking.enabled and not is_known(tracking)
    return f"tracking.uri={shlex.quote(tracking.uri)}" if elsewhere else ""


def places_of(earlier: Earlier, config: Config) -> str:
    """The places outside of the run that only its folder names; '' where there are none."""
    before, now = _flat(earlier.config.to_dict()), _flat(config.to_dict())
    keys = [key for key in ("store.path", "search.state_dir") if now[key] is not None]
    return ", ".join(f"{key}={now[key]}" for key in keys if now[key] == before[key])


def accepted_changes(earlier: Earlier, config: Config) -> dict[str, Any]:
    """Dotted keys that differ from what the run was made of, with their new values.

    Raises:
        ConfigError: one of them would make its trials incomparable.
    """
    before = config_of_run(earlier.noted.config) if earlier.noted else earlier.config
    found = _differences(_flat(before.to_dict()), _flat(config.to_dict()))
    refused = [_changed(*entry) for entry in found if not _may_change(*entry)]
    if refused:
        raise _refusal(earlier, refused)
    here = {"name", "output"}
    return {key: now for key, _, now in found if key not in here}


def require_same_data(earlier: Earlier, prepared: Prepared) -> None:
    """Refuse other images, labels or another base model than the run began with.

    Raises:
        ConfigError: they differ; the message names each file.
    """
    changes = [*_base_change(earlier.dataset, prepared), *_file_changes(earlier.dataset, prepared)]
    if changes:
        raise _refusal(earlier, changes)


def require_same_space(earlier: Earlier, space: Space) -> None:
    """Refuse a search space that is not the one the run began with.

    Raises:
        ConfigError: they differ; the message names each key.
    """
    if not earlier.noted or earlier.noted.space is None:
        return
    before, now = _flat_space(earlier.noted.space), _flat_space(space.to_dict())
    found = _differences(before, now)
    refused = [entry for entry in found if entry[0] == "name" or not _may_change(*entry)]
    if refused:
        raise _refusal(earlier, [f"search space: {_changed(*entry)}" for entry in refused])


def configuration_note(config: Config, space: Space | None, changes: str = "") -> Configured:
    """What a run is made of, for its records."""
    if space is None:
        return Configured(config.to_dict(), text=changes)
    return Configured(config.to_dict(), space.to_dict(), space.default, text=changes)


def describe_changes(earlier: Earlier, changes: Mapping[str, Any]) -> str:
    """One line of what is not as before; '' where nothing is."""
    before = _flat(earlier.noted.config if earlier.noted else earlier.config.to_dict())
    return "; ".join(_changed(key, before.get(key), now) for key, now in changes.items())


def _may_change(key: str, was: Any, now: Any) -> bool:
    if key == MORE:
        return was is None or now is None or bool(now >= was)
    return key in MAY_CHANGE or key.startswith(_GROUPS_THAT_MAY)


def _changed(key: str, was: Any, now: Any) -> str:
    only = "" if key != MORE or _may_change(key, was, now) else " (it can only be raised)"
    return f"{key} was {_shown(was)} and is {_shown(now)} now{only}"


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, default=str)


def _refusal(earlier: Earlier, lines: list[str]) -> ConfigError:
    more = len(lines) - _SHOWN
    listed = [*lines[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
    return ConfigError(
        f"{earlier.name} can't go on, as this is not what it was begun with:\n  "
        + "\n  ".join(listed)
        + "\nBring that back to what it was, or start a new run under another --name."
    )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    keys = dict.fromkeys([*before, *now])
    return [(k, before.get(k), now.get(k)) for k in keys if before.get(k) != now.get(k)]


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of nested mappings; lists are values."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _flat_space(space: Mapping[str, Any]) -> dict[str, Any]:
    arms = {f"arms.{arm}.{k}": v for arm, keys in space["arms"].items() for k, v in keys.items()}
    return {**{k: v for k, v in space.items() if k != "arms"}, **arms}


def _base_change(dataset: Mapping[str, Any], prepared: Prepared) -> Iterator[str]:
    was, now = dataset["base"], prepared.base
    if was["sha256"] != now.sha256:
        yield (
            f"the base model was {was['name']} (sha256 {was['sha256'][:12]}) and is {now.name}"
            f" (sha256 {now.sha256[:12]}) now"
        )


def _file_changes(dataset: Mapping[str, Any], prepared: Prepared) -> Iterator[str]:
    if dataset["key"] == prepared.store.key:
        return
    before = {case["id"]: case for case in dataset["cases"]}
    now = {case.id: case for case in prepared.cases}
    prints, hashes = prepared.store.fingerprints, file_hashes(prepared)
    yield from (f"{case['mri']} is no longer found" for id, case in before.items() if id not in now)
    yield from (f"{case.mri} is new" for id, case in now.items() if id not in before)
    changed = [id for id in before if id in now and before[id]["sha256"] != prints[id]]
    for id in changed:
        for kind, path in (("mri", now[id].mri), ("label", now[id].label)):
            if before[id].get(f"{kind}_sha256") != hashes[path]:
                yield f"{path} has changed (sha256 {hashes[path][:12]})"
    if not changed and before.keys() == now.keys():
        yield "the images are preprocessed in another way, by another version of hsf_tune"
