"""From conf/, a dataset's own file and the command line to one checked configuration.

Precedence, later over earlier: defaults, the dataset's hints, the search space's
constants, `strategy=FILE`, overrides, flags. Hydra's compose API reads the groups; what
the keys mean is `config.py`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hsf_tune.config import (
    REQUIRED,
    Config,
    as_it_was,
    config_from_dict,
    of_the_user,
    set_values,
)
from hsf_tune.errors import ConfigError, did_you_mean
from hsf_tune.finetuning.base import local_checkpoint
from hsf_tune.finetuning.strategy import SavedStrategy, load_strategy
from hsf_tune.installed import shipped
from hsf_tune.yaml_file import read_yaml

CONF = shipped("conf")
GROUPS = (
    "datasets", "models", "finetuning", "lightning", "augmentation", "search", "tracking",
)  # fmt: skip
HINTS = {  # what a dataset's file may suggest; addresses, paths and machines are no part of it
    "search": (
        "folds", "strategies_per_arm", "keep", "sampler", "n_startup_trials", "pruner", "confirm",
        "confirm_folds", "confirm_seeds", "test_share",
    ),
    "models": ("lr", "use_forgiving_loss", "labels_names"),
    "finetuning": ("mode", "depth", "unfreeze_frequency", "out_channels"),
    "lightning": (
        "precision", "max_epochs", "steps_per_epoch", "accumulate_grad_batches", "deterministic",
    ),
}  # fmt: skip
_DATASET = "a dataset's YAML: main_path, datasets, ... at its top"


@dataclass(frozen=True)
class Overrides:
    """The command line's `key=value` words, sorted by what they do.

    Attributes:
        groups: group -> file name or path.
        values: dotted key -> value, in the order given.
        strategy: what `strategy=FILE` names, or None.
    """

    groups: Mapping[str, str]
    values: Mapping[str, Any]
    strategy: Path | None


def parse_overrides(words: Sequence[str]) -> Overrides:
    """Sort the overrides of a command line.

    Raises:
        ConfigError: a word that is not `key=value`.
    """
    groups: dict[str, str] = {}
    values: dict[str, Any] = {}
    strategy = None
    for word in words:
        key, value = _parsed(word)
        if key == "strategy":
            strategy = Path(str(value))
        elif key in GROUPS and isinstance(value, str):
            groups[key] = value
        else:
            values[key] = value
    return Overrides(groups, values, strategy)


def compose_config(
    overrides: Overrides,
    *,
    space_constants: Mapping[str, Any] | None = None,
    flags: Mapping[str, Any] | None = None,
    config_dir: Path | None = None,
) -> tuple[Config, SavedStrategy | None]:
    """The configuration of a run, and the strategy file it follows, if any.

    Args:
        space_constants: dotted keys that the search space fixes for all its arms.
        flags: dotted keys set by the command's own flags; None values are left out.
        config_dir: a folder with groups of the user's own (datasets/NAME.yaml).

    Raises:
        ConfigError: any fault of any of these, all that can be seen at once.
    """
    foreign = [key for key in space_constants or {} if of_the_user(key)]
    if foreign:
        raise ConfigError(
            f"The search space sets {', '.join(foreign)}; that is for the command line, and for"
            " conf/. Take it out of the space's file."
        )
    saved = load_strategy(overrides.strategy) if overrides.strategy else None
    plain = _base(overrides, saved, config_dir)
    layers = [
        dict(space_constants or {}),
        {"seed": saved.seed, **saved.strategy} if saved else {},
        dict(overrides.values),
        {k: v for k, v in (flags or {}).items() if v is not None},
    ]
    for layer in layers:
        plain = _with(plain, layer)
    _refuse_interpolation(plain)
    make_paths_absolute(plain)
    return config_from_dict(plain), saved


def _base(
    overrides: Overrides, saved: SavedStrategy | None, config_dir: Path | None
) -> dict[str, Any]:
    """Groups and dataset hints; a strategy file brings the configuration it was found in, of
    which the groups named on the command line are replaced."""
    files = {
        group: file
        for group, choice in overrides.groups.items()
        if (file := _own_file(group, choice, config_dir)) is not None
    }
    plain = _composed({g: c for g, c in overrides.groups.items() if g not in files}, config_dir)
    if saved is not None:
        before = as_it_was(saved.config)
        plain |= {k: v for k, v in before.items() if k not in overrides.groups}
    for group, file in files.items():
        content = (
            _read_dataset(file) if group == "datasets" else read_yaml(file, f"keys of {group}")
        )
        plain[group] = {}
        plain = _with(plain, {f"{group}.{key}": value for key, value in content.items()})
    return _with(plain, _hints(plain))


def _composed(groups: Mapping[str, str], config_dir: Path | None) -> dict[str, Any]:
    """What conf/ holds, filled in."""
    for group, choice in groups.items():
        _check_choice(group, choice, config_dir)
    words = [f"{group}={choice}" for group, choice in groups.items()]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            plain = OmegaConf.to_container(compose("config", overrides=words), resolve=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"The configuration in {CONF} can't be composed: {error}") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _check_choice(group: str, choice: str, config_dir: Path | None) -> None:
    folders = [CONF, *([config_dir] if config_dir else [])]
    names = [f.stem for folder in folders for f in (folder / group).glob("*.yaml")]
    if choice not in names:
        text = f"{group}={choice}: no file {group}/{choice}.yaml.{did_you_mean(choice, names)}"
        raise ConfigError(
            text
            + (" A dataset may also be the path of a YAML file." if group == "datasets" else "")
        )


def _own_file(group: str, choice: str, config_dir: Path | None) -> Path | None:
    """The YAML outside conf/ that `group=` names: within --config-dir, or a dataset's by path."""
    if config_dir is not None and (own := config_dir / group / f"{choice}.yaml").exists():
        return own
    looks_like_path = choice.endswith((".yaml", ".yml")) or "/" in choice
    if group != "datasets" or not looks_like_path:
        return None
    path = Path(choice).expanduser()
    if not path.is_file():
        raise ConfigError(f"datasets={choice}: no such file. Expected the path of {_DATASET}.")
    return path


def _read_dataset(path: Path) -> dict[str, Any]:
    """A dataset's own file; a relative main_path in it is relative to its folder."""
    content = read_yaml(path, _DATASET)
    main_path = content.get("main_path")
    if main_path is not None and main_path != REQUIRED:
        own = path.resolve().parent / Path(str(main_path)).expanduser()
        content["main_path"] = str(own.resolve())
    return content


def _hints(plain: dict[str, Any]) -> dict[str, Any]:
    """Take a dataset's suggestions for other groups out of it, as dotted keys.

    Raises:
        ConfigError: it suggests what is not a dataset's to say.
    """
    if not isinstance(plain["datasets"], dict):
        return {}
    hints: dict[str, Any] = {}
    for group, known in HINTS.items():
        suggested = plain["datasets"].pop(group, {}) or {}
        if not isinstance(suggested, Mapping):
            raise ConfigError(
                f"{group} in the dataset's YAML is {suggested!r}; expected keys of {group}."
            )
        for key in suggested:
            if key not in known:
                raise ConfigError(
                    f"The dataset's YAML suggests {group}.{key}; expected some of"
                    f" {', '.join(known)}, which is what a dataset may suggest. Take it out there,"
                    f" and say {group}.{key}=... on the command line."
                )
        hints |= {f"{group}.{key}": value for key, value in suggested.items()}
    return hints


def _with(plain: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys laid over; of a group of keys, those that are not named stay."""
    for key, value in values.items():
        plain = set_values(plain, {key: _merged(_at(plain, key), value)})
    return plain


def _at(plain: Any, key: str) -> Any:
    for part in key.split("."):
        plain = plain.get(part) if isinstance(plain, Mapping) else None
    return plain


def _merged(before: Any, value: Any) -> Any:
    if not isinstance(before, Mapping) or not isinstance(value, Mapping):
        return value
    return {**before, **{k: _merged(before.get(k), v) for k, v in value.items()}}


def _refuse_interpolation(node: Any, key: str = "") -> None:
    """Nothing outside conf/ is filled in: a file could send what it names in the environment."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            _refuse_interpolation(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            _refuse_interpolation(value, f"{key}[{number}]")
    elif isinstance(node, str) and "${" in node:
        raise ConfigError(f"{key} can't be filled in: {node}. Write the value itself.")


def _parsed(word: str) -> tuple[str, Any]:
    try:
        override = OverridesParser.create().parse_override(word)
        if override.is_delete() or override.is_sweep_override():
            raise ConfigError(f"'{word}': expected key=value with one value.")
        return override.key_or_group, override.value()
    except HydraException as error:
        hint = "" if "=" in word else " Expected key=value, for example models.lr=1e-3."
        raise ConfigError(
            f"'{word}' on the command line can't be read: {str(error).splitlines()[0]}.{hint}"
            " Quote values with special characters: 'datasets.main_path=\"/my data\"'."
        ) from None


def make_paths_absolute(plain: dict[str, Any]) -> None:
    """So that workers in other folders, and later runs, find the same files."""
    models = plain.get("models")
    if isinstance(models, dict) and isinstance(models.get("checkpoint"), str):
        models["checkpoint"] = local_checkpoint(models["checkpoint"])
    datasets = plain.get("datasets")
    main_path = datasets.get("main_path") if isinstance(datasets, dict) else None
    if isinstance(datasets, dict) and isinstance(main_path, str) and main_path != REQUIRED:
        datasets["main_path"] = str(Path(main_path).expanduser().resolve())
