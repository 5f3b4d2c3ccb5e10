"""Which base model a run starts from, and what can be compared with it.

`models.checkpoint: auto` is the demo's small base for data that declare `base: demo`
and HSF's published model for all others, so that nobody finetunes a toy on patients
unawares. How files are fetched and verified is `model.weights`' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from hsf_tune.config import Config, ModelsConfig
from hsf_tune.finetuning.finished import best_weights, open_run
from hsf_tune.model.labels import are_hsf
from hsf_tune.model.network import Architecture
from hsf_tune.model.weights import FROM_SCRATCH, BaseModel, load_base, random_base
from hsf_tune.modes import n_blocks
from hsf_tune.run_folder import RunFolder

DEMO_BASE = Path(__file__).parents[1] / "model" / "demo_base.safetensors"


def resolve_checkpoint(config: Config) -> str:
    """The source that `models.checkpoint` means for these datasets."""
    chosen = config.models.checkpoint
    if chosen == "auto":
        chosen = "demo" if config.datasets.base == "demo" else config.datasets.base or "hsf"
    return str(DEMO_BASE) if chosen == "demo" else local_checkpoint(chosen)


def local_checkpoint(chosen: str) -> str:
    """A path made absolute, so that workers in other folders find it, and the folder of a
    finished run replaced by its weights; names and addresses as they are.

    Raises:
        ModelError: the run has not ended, or no weights of it are left.
    """
    path = Path(chosen).expanduser()
    if RunFolder(path).is_run:
        return str(best_weights(open_run(path)))
    return str(path.resolve()) if path.is_file() else chosen


def get_base(config: Config) -> BaseModel:
    """Load the base model of a run (from memory if this process has loaded it before).

    Raises:
        ModelError: it can't be fetched, verified or read.
    """
    if config.models.checkpoint == FROM_SCRATCH:
        return random_base(asked_architecture(config.models))
    base = _load_once(resolve_checkpoint(config), config.models.checksum)
    names = config.models.labels_names
    if base.labels_names is None and names is not None:
        return replace(base, labels_names=dict(names))
    return base


def describe_base(base: BaseModel) -> str:
    """The first line that a run prints."""
    a = base.architecture
    labels = f", labels {', '.join(base.labels_names.values())}" if base.labels_names else ""
    attention = "with" if a.use_attention else "without"
    return (
        f"Base model: {base.name} (f_maps {a.f_maps}, {a.num_levels} levels, {attention} attention,"
        f" {a.out_channels} channels{labels}), sha256 {base.sha256[:12]}"
    )


def blocks_of(base: BaseModel) -> dict[str, int]:
    """Mode -> number of blocks that it can open."""
    return n_blocks(base.architecture.halves)


def asked_architecture(models: ModelsConfig) -> Architecture:
    """What the configuration says of a network that no checkpoint decides."""
    return Architecture(
        modeltype=models.modeltype,
        in_channels=models.in_channels,
        out_channels=models.out_channels,
        f_maps=models.f_maps,
        num_levels=models.num_levels,
        layer_order=models.layer_order,
        use_attention=models.use_attention,
    )


def network_architecture(base: BaseModel, models: ModelsConfig) -> Architecture:
    """The base's own architecture with the number of channels that the finetuned one has."""
    return replace(base.architecture, out_channels=models.out_channels)


def base_comparable(base: BaseModel, config: Config) -> bool:
    """Whether the unchanged base predicts the labels of every dataset, so that its Dice means
    something: same names in the same order, or fewer CA labels and the forgiving loss."""
    if base.labels_names is None or base.architecture.out_channels != config.models.out_channels:
        return False
    if config.models.use_forgiving_loss and are_hsf(base.labels_names):
        return True  # whatever the forgiving loss takes is merged from these channels
    own = _names(base.labels_names)
    return all(own == _names(d.labels_names) for d in config.datasets.datasets.values())


def _names(names: Mapping[int, str]) -> list[str]:
    return [names[i].strip().lower() for i in sorted(names)]


@lru_cache(maxsize=2)
def _load_once(source: str, checksum: str | None) -> BaseModel:
    return load_base(source, checksum=checksum)
