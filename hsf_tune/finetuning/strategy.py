"""When two strategies are the same, and how a winner is written down.

In canonical form equal trainings have equal strategies: depth -1 is a number, at depth 0 neither mode nor frequency
matter, and the length of the run is always part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import PlainValidator, TypeAdapter, ValidationError

from hsf_tune.config import Config, without_places
from hsf_tune.data.splits import Split
from hsf_tune.errors import ConfigError
from hsf_tune.files import write_text
from hsf_tune.finetuning.schedule import resolve_depth, resolve_max_epochs
from hsf_tune.installed import typed
from hsf_tune.strategy import DEPTH, FREQUENCY, LR, MAX_EPOCHS, MODE, Strategy
from hsf_tune.yaml_file import read_yaml


def canonical(values: Mapping[str, Any], config: Config, blocks: Mapping[str, int]) -> Strategy:
    """The one form that all strategies training the same thing share.

    Args:
        values: dotted keys to values; keys that are left out come from `config`.
        blocks: mode -> number of blocks of the network, from `modes.n_blocks`.

    Raises:
        ConfigError: more blocks than the network has.
    """
    given = {
        MODE: config.finetuning.mode,
        DEPTH: config.finetuning.depth,
        FREQUENCY: config.finetuning.unfreeze_frequency,
        LR: config.models.lr,
        MAX_EPOCHS: config.lightning.max_epochs,
        **values,
    }
    depth = resolve_depth(given[MODE], given[DEPTH], blocks)
    epochs = resolve_max_epochs(given[MAX_EPOCHS], depth, given[FREQUENCY])
    result = {**given, DEPTH: depth, LR: float(given[LR]), MAX_EPOCHS: epochs}
    if depth == 0:
        del result[MODE], result[FREQUENCY]
    return Strategy(dict(sorted(result.items())))


@dataclass(frozen=True)
class SavedStrategy:
    """A trial written down so that `finetune.py strategy=FILE` repeats it.

    Attributes:
        config: of the search it comes from, as a plain dict; a file holds and gives it without
            what is its user's own: places, addresses, names.
        strategy: canonical dotted keys.
        precision, threads: of the run; on a CPU equal threads give equal numbers.
        base_sha256, dataset_key: fingerprints; a differing one is warned about.
    """

    strategy: Annotated[Strategy, PlainValidator(TypeAdapter(dict[str, Any]).validate_python)]
    config: Mapping[str, Any]
    split: Split
    seed: int
    threads: int
    precision: str
    base_name: str
    base_sha256: str
    dataset_key: str
    arm: str = ""
    trial: str = ""
    explored_dice: float | None = None
    reason: str = ""
    origin: Mapping[str, str] = field(default_factory=dict)  # versions and the like

    def __post_init__(self) -> None:
        object.__setattr__(self, "strategy", Strategy(self.strategy))


_ADAPTER: TypeAdapter[SavedStrategy] = TypeAdapter(SavedStrategy)
_EXPECTED = "what a search writes as outputs/NAME/best_strategy.yaml"
_SETS = ("models.", "finetuning.", "lightning.", "augmentation.", "datasets.batch_size")


def save_strategy(path: Path, saved: SavedStrategy) -> None:
    """Write `best_strategy.yaml`, replacing an older one at once."""
    header = (
        "# A finetuning strategy, with all that repeats it.\n"
        f"#   {typed('finetune', f'strategy={path}')}\n"
        "# Settings named on the command line replace those written here.\n"
    )
    plain = {**asdict(saved), "split": saved.split.to_dict(), "strategy": dict(saved.strategy)}
    plain["config"] = without_places(saved.config)
    write_text(path, header + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))


def load_strategy(path: Path) -> SavedStrategy:
    """Read what `save_strategy` wrote.

    Raises:
        ConfigError: no such file, or not a strategy file.
    """
    if not Path(path).exists():
        raise ConfigError(f"strategy={path}: no such file. Expected {_EXPECTED}.")
    try:
        saved = _ADAPTER.validate_python(read_yaml(Path(path), _EXPECTED))
    except ConfigError as error:
        raise ConfigError(f"strategy={path} is not a strategy file. {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
        raise ConfigError(
            f"strategy={path} is not a strategy file ({what}). Expected {_EXPECTED}."
        ) from None
    foreign = [key for key in saved.strategy if not key.startswith(_SETS)]
    if foreign:
        raise ConfigError(
            f"strategy={path} sets {', '.join(foreign)}; expected settings of the training, which"
            f" begin with {', '.join(_SETS)}. Take it out there."
        )
    return replace(saved, config=without_places(saved.config))
