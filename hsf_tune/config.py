"""What every configuration key means, its default and its bounds.

A plain dict comes in (from YAML, however it was composed), frozen dataclasses go
out; every unknown key and every value out of bounds is reported at once. Nothing
here reads a file or knows Hydra. What only the data or the base model can decide
(whether `finetuning.out_channels` fits the labels, whether the network has that
many blocks) is checked where those are read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from hsf_tune.credentials import kept_apart
from hsf_tune.errors import ConfigError, did_you_mean, printable
from hsf_tune.modes import ModeName

REQUIRED = "???"  # a key that the user has to fill in, as OmegaConf writes it
OF_THE_USER = frozenset({
    "name", "output", "tracking", "store", "search.address", "search.state_dir",
})  # fmt: skip
_STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=False)

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
CaType = Literal["1/2/3", "1/23", "123"]


@dataclass(frozen=True)
class PatternConfig:
    """One contrast or side of a dataset: where its images and their labels are."""

    __pydantic_config__ = _STRICT
    mri: str  # glob below main_path/path
    label: str  # glob in the image's own folder; may hold {subject} and {stem}


@dataclass(frozen=True)
class DatasetConfig:
    """One dataset: a folder of subjects that share a labelling guideline."""

    __pydantic_config__ = _STRICT
    path: str  # below main_path
    ca_type: CaType  # how far CA1, CA2 and CA3 are told apart
    patterns: Mapping[str, PatternConfig]
    labels: Mapping[int, int]  # value on disk -> label 1..N, or 0 to drop it
    labels_names: Mapping[int, str]  # label 1..N -> name
    subject: str | None = None  # regex whose first group, searched in the path, names the subject


@dataclass(frozen=True)
class DatasetsConfig:
    """Which images train and how they are read; the schema that HSF's users know."""

    __pydantic_config__ = _STRICT
    main_path: str
    datasets: Mapping[str, DatasetConfig]
    output_path: str = "./models/"
    batch_size: Count = 1
    num_workers: Annotated[int, Field(ge=0)] = 0
    pin_memory: bool = False
    train_ratio: Annotated[float, Field(gt=0, le=1)] = 0.8
    replace: bool = False
    k_sample: Count | None = None
    train_val_test_idx: tuple[list[int], list[int], list[int]] | None = None
    train_val_test_subjects: tuple[list[str], list[str], list[str]] | None = None
    train_on_all: bool = False
    allow_subject_overlap: bool = False
    base: str | None = None  # the base model that `models.checkpoint: auto` means here


@dataclass(frozen=True)
class ModelsConfig:
    """The network, the checkpoint it starts from, and how it learns."""

    __pydantic_config__ = _STRICT
    checkpoint: str = "auto"  # auto, hsf, bag_0..bag_4, demo, none, a path, a URL or outputs/NAME
    checksum: str | None = None  # xxh3_64 or sha256 of that file, where it is not a known one
    labels_names: Mapping[int, str] | None = None  # of the base, where its file does not say
    modeltype: str = "ResidualUNet3D"  # of `model/networks.py`; a checkpoint says it itself
    in_channels: Literal[1] = 1
    out_channels: Annotated[int, Field(ge=2, le=256)] = 6
    f_maps: Annotated[int, Field(ge=2, le=512)] = 64
    num_levels: Annotated[int, Field(ge=2, le=6)] = 4
    layer_order: str = "cgs"
    use_attention: bool = True
    lr: Annotated[float, Field(gt=0, le=1)] = 1e-3
    use_forgiving_loss: bool = True


@dataclass(frozen=True)
class FinetuningConfig:
    """Which part of the network learns, and when."""

    __pydantic_config__ = _STRICT
    mode: ModeName = "decoder"
    depth: Annotated[int, Field(ge=-1)] = -1  # blocks opened beyond the final convolution; -1 = all
    unfreeze_frequency: Annotated[int, Field(ge=0)] = 4  # epochs between two openings; 0: all open
    out_channels: Annotated[int, Field(ge=2, le=256)] = 6  # counts the background


@dataclass(frozen=True)
class LightningConfig:
    """Settings of the Lightning trainer."""

    __pydantic_config__ = _STRICT
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: Literal[1] = 1  # a trial trains on one device; the search spreads trials over devices
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    max_epochs: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    steps_per_epoch: Count | Literal["auto"] = "auto"  # optimiser steps, at least
    accumulate_grad_batches: Count = 4  # batches a step, at most
    log_every_n_steps: Count = 1
    benchmark: bool = False
    deterministic: bool = False
    activation_checkpointing: bool | Literal["auto"] = "auto"


@dataclass(frozen=True)
class FlipConfig:
    __pydantic_config__ = _STRICT
    p: Probability = 0.5


@dataclass(frozen=True)
class MotionConfig:
    __pydantic_config__ = _STRICT
    p: Probability = 0.1
    degrees: Annotated[float, Field(ge=0)] = 5.0
    translation_mm: Annotated[float, Field(ge=0)] = 5.0
    num_transforms: Count = 3


@dataclass(frozen=True)
class BlurConfig:
    __pydantic_config__ = _STRICT
    p: Probability = 0.1
    std_mm: tuple[float, float] = (0.0, 0.5)


@dataclass(frozen=True)
class NoiseConfig:
    __pydantic_config__ = _STRICT
    p: Probability = 0.1
    std: Annotated[float, Field(ge=0)] = 0.5  # of the z-normalised image


@dataclass(frozen=True)
class GammaConfig:
    __pydantic_config__ = _STRICT
    p: Probability = 0.1
    log_gamma: Annotated[float, Field(ge=0)] = 0.4


@dataclass(frozen=True)
class AffineConfig:
    __pydantic_config__ = _STRICT
    p: Probability = 0.2
    scales: Annotated[float, Field(ge=0, lt=1)] = 0.3
    degrees: Annotated[float, Field(ge=0)] = 30.0
    translation_mm: Annotated[float, Field(ge=0)] = 5.0
    isotropic: bool = False


@dataclass(frozen=True)
class ElasticConfig:
    __pydantic_config__ = _STRICT
    p: Probability = 0.1
    control_points: Annotated[int, Field(ge=4)] = 4
    max_displacement_mm: Annotated[float, Field(ge=0)] = 4.0


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of the training images; probabilities p are per image and epoch."""

    __pydantic_config__ = _STRICT
    flip: FlipConfig = field(default_factory=FlipConfig)
    motion: MotionConfig = field(default_factory=MotionConfig)
    blur: BlurConfig = field(default_factory=BlurConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    gamma: GammaConfig = field(default_factory=GammaConfig)
    affine: AffineConfig = field(default_factory=AffineConfig)
    elastic: ElasticConfig = field(default_factory=ElasticConfig)


@dataclass(frozen=True)
class SearchConfig:
    """How many strategies are tried, on what, and with which resources."""

    __pydantic_config__ = _STRICT
    folds: Annotated[int, Field(ge=2)] = 4  # exploration folds; fold 1 ranks first
    strategies_per_arm: Count = 12
    keep: list[Count] = field(default_factory=lambda: [6, 3, 3])  # survivors on folds 2, 3, 4
    sampler: str = "tpe"  # of `search/samplers.py`
    n_startup_trials: Count = 4  # random strategies of an arm before TPE guides
    pruner: Literal["none", "median"] = "none"
    confirm: bool = True
    confirm_folds: Annotated[int, Field(ge=2)] = 10
    confirm_seeds: Count = 1
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.2  # locked test set, from 60 subjects on
    time_budget_s: Positive | None = None
    max_concurrent: Count | None = None
    cpus_per_trial: Positive | None = None
    gpus_per_trial: Annotated[float, Field(ge=0)] | None = None
    address: str | None = None  # of an existing Ray cluster
    state_dir: str | None = None  # local disk for optuna.db where the output folder can't lock
    max_retries: Annotated[int, Field(ge=0)] = 3  # of a trial whose worker or node died
    keep_checkpoints: Literal["finalists", "all"] = "finalists"


@dataclass(frozen=True)
class VerdictConfig:
    """The margins of the verdict, in Dice."""

    __pydantic_config__ = _STRICT
    superior: Annotated[float, Field(ge=0, lt=1)] = 0.005
    equivalent: Annotated[float, Field(gt=0, lt=1)] = 0.010
    label_flag: Annotated[float, Field(gt=-1, le=0)] = -0.02
    surface_tolerance_mm: Positive | None = None  # null: the largest voxel side


@dataclass(frozen=True)
class TrackingConfig:
    """Where MLflow keeps its runs."""

    __pydantic_config__ = _STRICT
    enabled: bool = True
    uri: str = "sqlite:///mlflow.db"
    experiment: str = "hsf_tune"
    required: bool = True  # refuse to start when the server can't be reached

    def __post_init__(self) -> None:
        """Hold the address without a password, whatever the configuration is written to."""
        object.__setattr__(self, "uri", kept_apart(self.uri))


@dataclass(frozen=True)
class StoreConfig:
    """The preprocessed copies of the images that all workers of a machine share."""

    __pydantic_config__ = _STRICT
    path: str | None = None  # null: the user's cache folder
    limit_gb: Positive = 20.0  # least recently used datasets are dropped beyond it


@dataclass(frozen=True)
class Config:
    """A whole run, checked."""

    __pydantic_config__ = _STRICT
    datasets: DatasetsConfig
    models: ModelsConfig = field(default_factory=ModelsConfig)
    finetuning: FinetuningConfig = field(default_factory=FinetuningConfig)
    lightning: LightningConfig = field(default_factory=LightningConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    verdict: VerdictConfig = field(default_factory=VerdictConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    output: str = "outputs"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The plain dict that `config_from_dict` reads back to an equal Config."""
        return _plain(self)

    def with_values(self, values: Mapping[str, Any]) -> Config:
        """A copy with dotted keys (`models.lr`) replaced, checked again."""
        return config_from_dict(set_values(self.to_dict(), values))


_ADAPTER: TypeAdapter[Config] = TypeAdapter(Config)


def config_from_dict(plain: Mapping[str, Any]) -> Config:
    """Check a composed configuration.

    Args:
        plain: nested dict with the groups of `Config`.

    Raises:
        ConfigError: one message that lists every missing, unknown or invalid key.
    """
    missing = sorted(_required_keys(plain))
    if missing:
        raise ConfigError(
            "\n".join(
                f"{key} is not set. {_HINTS.get(key, 'Give it a value')}: {key}=..."
                for key in missing
            )
        )
    try:
        config = _ADAPTER.validate_python(plain)
    except ValidationError as error:
        raise ConfigError("\n".join(_sentences(error))) from None
    return _cross_checked(config)


def config_of_run(plain: Mapping[str, Any]) -> Config:
    """As `config_from_dict`, of what a run wrote down, perhaps of an earlier version."""
    return config_from_dict(as_it_was(plain))


def as_it_was(plain: Mapping[str, Any]) -> dict[str, Any]:
    """What a run wrote down; a key that its version did not have gets the value that says what
    that version did."""
    missing = {
        key: value
        for key, value in _BEFORE.items()
        if key.split(".")[-1] not in plain.get(key.split(".")[0], {})
    }
    return set_values(plain, missing)


def of_the_user(key: str) -> bool:
    """Whether a dotted key is no file's to set but that of the user, and of conf/."""
    return key in OF_THE_USER or key.split(".")[0] in OF_THE_USER


def without_places(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration out of somebody's file, without what belongs to the one who runs it.

    Where things are kept, sent and computed, and under which name, is for this machine's user to
    say; a file that was handed over brings the study alone. What is no group of keys is left for
    `config_from_dict` to refuse.
    """
    groups = {
        group: {k: v for k, v in keys.items() if not of_the_user(f"{group}.{k}")}
        if isinstance(keys, Mapping)
        else keys
        for group, keys in plain.items()
    }
    return {group: keys for group, keys in groups.items() if not of_the_user(group)}


def set_values(plain: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of `plain` with each dotted key of `values` set.

    `finetuning.out_channels` also sets `models.out_channels`, which follows it.
    """
    result = _copied(plain)
    for key, value in values.items():
        *groups, last = key.split(".")
        node = result
        for group in groups:
            child = node.setdefault(group, {})
            if not isinstance(child, dict):
                raise ConfigError(
                    f"{key}: '{group}' holds the value {child!r}, not a group of keys."
                )
            node = child
        node[last] = _copied(value) if isinstance(value, Mapping) else value
    if "finetuning.out_channels" in values and "models.out_channels" not in values:
        result.setdefault("models", {})["out_channels"] = values["finetuning.out_channels"]
    return result


def get_value(plain: Mapping[str, Any], key: str) -> Any:
    """The value under a dotted key.

    Raises:
        ConfigError: there is no such key; the message lists those of the same group.
    """
    node: Any = plain
    for depth, part in enumerate(key.split(".")):
        if not isinstance(node, Mapping) or part not in node:
            where = ".".join(key.split(".")[:depth]) or "the configuration"
            valid = list(node) if isinstance(node, Mapping) else []
            raise ConfigError(f"{key}: no key '{part}' in {where}.{did_you_mean(part, valid)}")
        node = node[part]
    return node


_BEFORE = {"lightning.steps_per_epoch": 1}  # newer key -> what was done before there was one
_HINTS = {
    "datasets.main_path": (
        "It is the folder that holds your datasets' folders; name it on the command line or in"
        " the dataset's YAML"
    )
}


def _cross_checked(config: Config) -> Config:
    faults = []
    if config.models.out_channels != config.finetuning.out_channels:
        faults.append(
            f"models.out_channels is {config.models.out_channels}, finetuning.out_channels is"
            f" {config.finetuning.out_channels}; they must be equal. Set only"
            " finetuning.out_channels: the other follows it."
        )
    faults += _unprintable(config)
    if not config.datasets.datasets:
        faults.append("datasets.datasets is empty; it needs at least one dataset.")
    keep = config.search.keep
    if len(keep) != config.search.folds - 1 or sorted(keep, reverse=True) != list(keep):
        faults.append(
            f"search.keep is {list(keep)}; expected {config.search.folds - 1} numbers that never"
            f" rise, one for each of the folds 2 to {config.search.folds} (search.folds)."
        )
    if faults:
        raise ConfigError("\n".join(faults))
    return config


def _unprintable(config: Config) -> Iterable[str]:
    """Names that would steer a terminal, or are no text, go no further."""
    names = {"models.labels_names": list((config.models.labels_names or {}).values())}
    names["datasets.datasets"] = list(config.datasets.datasets)
    for name, dataset in config.datasets.datasets.items():
        key = f"datasets.datasets.{name}"
        names[f"{key}.patterns"] = list(dataset.patterns)
        names[f"{key}.labels_names"] = list(dataset.labels_names.values())
    for key, several in names.items():
        for name in several:
            if printable(name) != name or "\n" in name:
                yield f"{key}: the name {name!r} holds control characters. Choose one without."


def _sentences(error: ValidationError) -> Iterable[str]:
    """pydantic's list of errors as sentences that name the key and the valid values."""
    seen = set()
    for item in error.errors():
        path = [str(p) for p in item["loc"] if not _is_union_tag(p)]
        key = ".".join(path)
        kind, context = item["type"], item.get("ctx", {})
        if kind == "unexpected_keyword_argument":
            group = ".".join(path[:-1]) or "the configuration"
            text = (
                f"{key}: unknown key '{path[-1]}' in {group}."
                f"{did_you_mean(path[-1], _valid_keys(path[:-1]))}"
            )
        elif kind in ("missing", "missing_argument"):
            text = f"{key} is missing; it has no default. Add it."
        elif kind == "dataclass_type":
            valid = ", ".join(_valid_keys(path))
            text = f"{key} is {item['input']!r}; expected a group of keys: {valid}."
        elif path and path[-1] == "[key]":
            text = f"{'.'.join(path[:-2])}: '{item['input']}' as a key: {item['msg'].lower()}."
        elif kind == "literal_error":
            found = item["input"]
            text = f"{key} is {found!r}; expected {context['expected']}."
            if found == "bf16-true":
                text += " bf16-true weights lose small updates; use bf16-mixed."
        else:
            text = f"{key} is {item['input']!r}: {item['msg'].lower()}."
        if (key, kind) not in seen:
            seen.add((key, kind))
            yield text


def _is_union_tag(part: str | int) -> bool:
    """pydantic adds the union's member to a location; users know only the key."""
    tags = ("literal[", "constrained-", "function-", "tuple[", "list[", "dict[")
    return isinstance(part, str) and (
        part.startswith(tags) or part in {"int", "float", "bool", "str", "none"}
    )


def _valid_keys(path: list[str]) -> list[str]:
    """Field names of the dataclass at a dotted place, stepping through mappings."""
    current: Any = Config
    hints = _hints_of(current)
    for part in path:
        step = hints.get(part) if dataclasses.is_dataclass(current) else None
        if step is None:  # a mapping's own key: its value type is already current
            continue
        current = step
        hints = _hints_of(current)
    return list(hints)


def _hints_of(kind: Any) -> dict[str, Any]:
    if not dataclasses.is_dataclass(kind):
        return {}
    found = {}
    for item in dataclasses.fields(kind):
        annotation = _resolve(item.type)
        inner = [a for a in get_args(annotation) if dataclasses.is_dataclass(a)]
        found[item.name] = inner[0] if inner else annotation
    return found


def _resolve(annotation: Any) -> Any:
    return eval(annotation, globals()) if isinstance(annotation, str) else annotation


def _required_keys(node: Any, prefix: str = "") -> Iterable[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _required_keys(value, f"{prefix}.{key}" if prefix else str(key))
    elif node == REQUIRED:
        yield prefix


def _copied(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _copied(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_copied(value) for value in node]
    return node


def _plain(node: Any) -> Any:
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return {f.name: _plain(getattr(node, f.name)) for f in dataclasses.fields(node)}
    return (
        _copied(node) if not isinstance(node, Mapping) else {k: _plain(v) for k, v in node.items()}
    )
