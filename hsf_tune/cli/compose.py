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
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hsf_tune.config import REQUIRED, Config, config_from_dict
from hsf_tune.errors import ConfigError, did_you_mean
from hsf_tune.finetuning.base import local_checkpoint
from hsf_tune.finetuning.strategy import SavedStrategy, load_strategy
from hsf_tune.yaml_file import sound_yaml

CONF = Path(__file__).parents[2] / "conf"
GROUPS = (
    "datasets", "models", "finetuning", "lightning", "augmentation", "search", "tracking",
)  # fmt: skip
HINTS = ("search", "models", "finetuning", "lightning")  # what a dataset's file may suggest


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
    saved = load_strategy(overrides.strategy) if overrides.strategy else None
    tree = _base_tree(overrides, saved, config_dir)
    layers = [
        dict(space_constants or {}),
        {"seed": saved.seed, **saved.strategy} if saved else {},
        dict(overrides.values),
        {k: v for k, v in (flags or {}).items() if v is not None},
    ]
    for layer in layers:
        for key, value in layer.items():
            _set(tree, key, value)
    try:
        plain = OmegaConf.to_container(tree, resolve=True)
    except OmegaConfBaseException as error:
        first, key = str(error).splitlines()[0], getattr(error, "full_key", "") or "A value"
        raise ConfigError(f"{key} can't be filled in: {first}.") from None
    assert isinstance(plain, dict)
    make_paths_absolute(plain)
    return config_from_dict(plain), saved


def _base_tree(
    overrides: Overrides, saved: SavedStrategy | None, config_dir: Path | None
) -> DictConfig:
    """Groups and dataset hints; a strategy file brings the whole configuration it was found in,
    of which the groups named on the command line are replaced."""
    groups = dict(overrides.groups)
    dataset_file = _dataset_file(groups.get("datasets"), config_dir)
    if dataset_file is not None:
        groups.pop("datasets")
    tree = _composed(groups, config_dir)
    if saved is not None:
        kept = {k: v for k, v in saved.config.items() if k not in overrides.groups}
        own = {k: v for k, v in kept.items() if k not in ("name", "output", "tracking")}
        tree = OmegaConf.merge({k: v for k, v in tree.items() if k not in own}, own)
        if "models" in own:
            tree.models.out_channels = "${finetuning.out_channels}"
    if dataset_file is not None:
        tree.datasets = _read_dataset(dataset_file)
    _spread_hints(tree)
    return tree


def _composed(groups: Mapping[str, str], config_dir: Path | None) -> DictConfig:
    for group, choice in groups.items():
        _check_choice(group, choice, config_dir)
    words = [f"{group}={choice}" for group, choice in groups.items()]
    if config_dir is not None:
        words.append(f"hydra.searchpath=[file://{config_dir.resolve()}]")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            tree = compose("config", overrides=words)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"The configuration in {CONF} can't be composed: {error}") from error
    OmegaConf.set_struct(tree, False)
    return tree


def _check_choice(group: str, choice: str, config_dir: Path | None) -> None:
    folders = [CONF, *([config_dir] if config_dir else [])]
    names = [f.stem for folder in folders for f in (folder / group).glob("*.yaml")]
    if choice not in names:
        text = f"{group}={choice}: no file {group}/{choice}.yaml.{did_you_mean(choice, names)}"
        raise ConfigError(
            text
            + (" A dataset may also be the path of a YAML file." if group == "datasets" else "")
        )


def _dataset_file(choice: str | None, config_dir: Path | None) -> Path | None:
    """The YAML outside conf/ that `datasets=` names, by path or within --config-dir."""
    if choice is None:
        return None
    if config_dir is not None and (own := config_dir / "datasets" / f"{choice}.yaml").exists():
        return own
    looks_like_path = choice.endswith((".yaml", ".yml")) or "/" in choice
    if not looks_like_path:
        return None
    path = Path(choice).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"datasets={choice}: no such file. Expected the path of a dataset's YAML."
        )
    return path


def _read_dataset(path: Path) -> DictConfig:
    """A dataset's own file; a relative main_path in it is relative to its folder."""
    try:
        tree = OmegaConf.create(sound_yaml(path))
    except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"{path} can't be read as YAML: {first}") from None
    if not isinstance(tree, DictConfig) or not tree:
        raise ConfigError(f"{path} holds no keys. Expected main_path, datasets, ... at its top.")
    main_path = tree.get("main_path") if not OmegaConf.is_missing(tree, "main_path") else None
    if main_path is not None:
        tree.main_path = str((path.resolve().parent / Path(str(main_path)).expanduser()).resolve())
    return tree


def _spread_hints(tree: DictConfig) -> None:
    """Move a dataset's suggestions for other groups to where they belong."""
    for group in HINTS:
        hint = tree.datasets.pop(group, None)
        if hint is None:
            continue
        if not isinstance(hint, DictConfig):
            raise ConfigError(
                f"{group} in the dataset's YAML is {hint!r}; expected keys of {group}."
            )
        tree[group] = OmegaConf.merge(tree[group], hint)


def _set(tree: DictConfig, key: str, value: Any) -> None:
    try:
        OmegaConf.update(tree, key, value, merge=isinstance(value, Mapping), force_add=True)
    except OmegaConfBaseException as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"{key}={value} can't be set: {first}") from None


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
