"""Read a space file into arms whose every strategy is known to be valid.

Everything that could go wrong with a space is found here, before anything trains:
unknown keys, values out of bounds, more blocks than the network has, arms that are the
same. What an arm's suggestions become is decided in `arms.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hsf_tune.config import Config, get_value
from hsf_tune.errors import ConfigError, did_you_mean
from hsf_tune.records import NO_ARMS
from hsf_tune.search.arms import Arm, Space, Terms
from hsf_tune.search.domain import Domain, parse_domain
from hsf_tune.search.samplers import sampler_of
from hsf_tune.search.space_file import find_space, read_space
from hsf_tune.strategy import DEPTH, FREQUENCY, LR, MAX_EPOCHS, MODE

ARM_OPTIONS = ("strategies", "finalists")
_SEARCHABLE = {
    MODE,
    DEPTH,
    FREQUENCY,
    LR,
    "models.use_forgiving_loss",
    "lightning.accumulate_grad_batches",
    "lightning.precision",
    "datasets.batch_size",
}  # and all of augmentation; the rest decides which data, network or search it is


def load_space(
    name_or_path: str,
    config: Config,
    *,
    blocks: Mapping[str, int],
    fixed: Mapping[str, Any] | None = None,
) -> Space:
    """Read and check a search space.

    Args:
        name_or_path: a name in `search_spaces/`, or a path.
        config: what holds for the keys that the space leaves alone.
        blocks: mode -> number of blocks of the base model's network.
        fixed: dotted keys that the user set; a searched one is searched no more.

    Raises:
        ConfigError: the space can't be searched; the message says where and why.
    """
    path = find_space(name_or_path)
    return build_space(path.stem, read_space(path), config, blocks, fixed or {}, str(path))


def build_space(
    name: str,
    content: Mapping[str, Any],
    config: Config,
    blocks: Mapping[str, int],
    fixed: Mapping[str, Any],
    where: str,
) -> Space:
    """As `load_space`, from what the file `where` holds."""
    own = {k: v for k, v in content.items() if k not in ("name", "arms", "start")}
    reader = _Reader(where, config, blocks, fixed)
    constants = reader.constants(own)
    reader = replace(reader, config=reader.configured(constants))
    sampler_of(reader.config.search)
    shared, _ = reader.settings("", {k: v for k, v in own.items() if isinstance(v, Mapping)}, {})
    arms = reader.arms(content.get("arms"), shared)
    varied = tuple(sorted({key for arm in arms for key in (*arm.domains, *arm.constants)}))
    terms = Terms(reader.config, blocks, varied)
    default = terms.documented_default()
    start = reader.start_points("", content.get("start"))
    arms = [reader.completed(arm, terms, start, default) for arm in arms]
    reader.refuse_twins(arms, terms)
    return Space(str(content.get("name", name)), tuple(arms), constants, terms, default)


@dataclass(frozen=True)
class _Reader:
    """Reads the parts of one space file; begins every error with where it is."""

    where: str
    config: Config
    blocks: Mapping[str, int]
    fixed: Mapping[str, Any]

    def at(self, arm: str, key: str = "") -> str:
        parts = (self.where, f"arm '{arm}'" if arm else "", key)
        return ", ".join(part for part in parts if part)

    def constants(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """The space's settings for all its arms; what the user set goes before them."""
        self._check_keys("", own)
        constants = {k: v for k, v in own.items() if not isinstance(v, Mapping)}
        return {key: self.fixed.get(key, value) for key, value in constants.items()}

    def configured(self, constants: Mapping[str, Any]) -> Config:
        """The configuration with the space's settings applied."""
        try:
            config = self.config.with_values(constants)
        except ConfigError as error:
            raise ConfigError(f"{self.where}: {error}") from None
        if not isinstance(config.lightning.max_epochs, int):
            raise ConfigError(
                f"{self.where}: {MAX_EPOCHS} is {config.lightning.max_epochs}. All trials of a"
                " search have the same length; write a number of epochs above `arms:`."
            )
        return config

    def arms(self, listed: Any, shared: Mapping[str, Domain]) -> list[Arm]:
        if not isinstance(listed, Mapping) or not listed:
            raise ConfigError(
                f"{self.where}: no `arms:`. A space needs at least one with its keys."
            )
        return [self._arm(str(name), keys, shared) for name, keys in listed.items()]

    def settings(
        self, arm: str, keys: Mapping[str, Any], shared: Mapping[str, Domain]
    ) -> tuple[dict[str, Domain], dict[str, Any]]:
        """Domains and constants of a block of keys; what the user fixed is a constant."""
        self._check_keys(arm, keys)
        for key in keys:
            self._check_searchable(arm, key)
        domains = {k: d for k, d in shared.items() if k not in keys}
        constants = {k: v for k, v in keys.items() if not isinstance(v, Mapping)}
        for key, value in keys.items():
            if isinstance(value, Mapping):
                domains[key] = parse_domain(self.at(arm, key), value)
        for key, value in constants.items():
            self._refuse_contradiction(arm, key, value)
        constants |= {k: self.fixed[k] for k in domains if k in self.fixed}
        domains = {k: d for k, d in domains.items() if k not in constants}
        for key, value in constants.items():
            self._check_value(arm, key, value)
        for key, domain in domains.items():
            for value in domain.probes():
                self._check_value(arm, key, value)
        return domains, constants

    def start_points(self, arm: str, listed: Any) -> list[dict[str, Any]]:
        """The start points, without the keys that the user fixed."""
        if listed is None:
            return []
        if not isinstance(listed, list) or not all(isinstance(p, Mapping) for p in listed):
            raise ConfigError(f"{self.at(arm, 'start')}: expected a list of keys with values.")
        for point in listed:
            self._check_keys(arm, point)
            for key, value in point.items():
                self._check_searchable(arm, key)
                self._check_value(arm, key, value)
        return [{k: v for k, v in point.items() if k not in self.fixed} for point in listed]

    def completed(
        self, arm: Arm, terms: Terms, start: list[dict[str, Any]], default: Mapping[str, Any]
    ) -> Arm:
        """The arm with its start points, the documented default before all, and its size."""
        size = terms.size(arm)
        if size == 0:
            raise ConfigError(
                f"{self.at(arm.name)} has no strategy that opens all of its blocks within the"
                f" {self.config.lightning.max_epochs} epochs of {MAX_EPOCHS}. Expected"
                " (depth + 1) x unfreeze_frequency of at most that for some of them."
            )
        points = [terms.fitted(arm, point) for point in (*arm.start, *start)]
        documented = terms.fitted(arm, {k: v for k, v in default.items() if k != MAX_EPOCHS})
        if documented is not None and terms.strategy(arm, documented) == default:
            points.insert(0, documented)
        found = [p for i, p in enumerate(points) if p is not None and p not in points[:i]]
        return replace(arm, start=tuple(found), size=size)

    def refuse_twins(self, arms: list[Arm], terms: Terms) -> None:
        """Two arms that hold the same strategies can't be compared."""
        seen: dict[str, str] = {}
        for arm in arms:
            mark = terms.signature(arm)
            if mark in seen:
                cause = ", ".join(f"{k}={v}" for k, v in self.fixed.items() if k in terms.varied)
                raise ConfigError(
                    f"{self.where}: the arms '{seen[mark]}' and '{arm.name}' hold the same"
                    f" strategies{f' once {cause} is fixed' if cause else ''}. Leave one of them"
                    " out."
                )
            seen[mark] = arm.name

    def _arm(self, name: str, keys: Any, shared: Mapping[str, Domain]) -> Arm:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in NO_ARMS:
            raise ConfigError(
                f"{self.where}: '{name}' can't name an arm. Use letters, digits and underscores,"
                f" and not one of {', '.join(NO_ARMS)}."
            )
        if not isinstance(keys, Mapping):
            raise ConfigError(f"{self.at(name)} holds {keys!r}, expected keys with their values.")
        own = {k: v for k, v in keys.items() if k not in (*ARM_OPTIONS, "start")}
        domains, constants = self.settings(name, own, shared)
        arm = Arm(
            name,
            domains,
            constants,
            start=tuple(self.start_points(name, keys.get("start"))),
            strategies=self._count(name, "strategies", keys.get("strategies")),
            finalists=self._count(name, "finalists", keys.get("finalists")),
        )
        return self._with_depths(arm)

    def _with_depths(self, arm: Arm) -> Arm:
        """-1 turned into a number, and no depth beyond the network's blocks."""
        modes = self._modes(arm)
        most = max(self.blocks[mode] for mode in modes)
        domain, constant = arm.domains.get(DEPTH), arm.constants.get(DEPTH, 0)
        if domain is not None and domain.kind != "choice" and domain.probes()[0] < 0:
            raise ConfigError(
                f"{self.at(arm.name, DEPTH)} starts at {domain.low}. In a range write numbers of"
                f" blocks, 0 to {most}."
            )
        depths = domain.probes() if domain is not None else (constant,)
        if -1 in depths and len({self.blocks[mode] for mode in modes}) > 1:
            raise ConfigError(
                f"{self.at(arm.name, DEPTH)} is -1, all blocks, but {' and '.join(modes)} have not"
                " equally many. Write numbers, or one arm a mode."
            )
        deepest = max(domain.probes()) if domain is not None else constant
        if deepest > most:
            raise ConfigError(
                f"{self.at(arm.name, DEPTH)} goes up to {deepest}, but the base model has {most}"
                f" blocks for finetuning.mode={' or '.join(modes)}. Use 0 to {most}."
            )
        if domain is not None and domain.kind == "choice":
            numbers = tuple(dict.fromkeys(most if d == -1 else d for d in domain.choices))
            return replace(arm, domains={**arm.domains, DEPTH: Domain("choice", choices=numbers)})
        if constant == -1:
            return replace(arm, constants={**arm.constants, DEPTH: most})
        return arm

    def _modes(self, arm: Arm) -> list[str]:
        if MODE in arm.domains:
            return list(arm.domains[MODE].choices)
        return [arm.constants.get(MODE, self.config.finetuning.mode)]

    def _check_keys(self, arm: str, keys: Iterable[str]) -> None:
        plain = self.config.to_dict()
        for key in keys:
            if not _exists(plain, key):
                raise ConfigError(f"{self.at(arm)}: no key '{key}'.{_key_hint(str(key), plain)}")

    def _check_searchable(self, arm: str, key: str) -> None:
        if key == MAX_EPOCHS:
            raise ConfigError(
                f"{self.at(arm, key)}: trials have the same length in all arms, or"
                " 'how fast to open' would be 'how long to train'. Set it once, above `arms:`."
            )
        if key not in _SEARCHABLE and not key.startswith("augmentation."):
            raise ConfigError(
                f"{self.at(arm, key)} can't differ between strategies. Set it above `arms:` or on"
                f" the command line. What can: {', '.join(sorted(_SEARCHABLE))}, augmentation.*."
            )

    def _check_value(self, arm: str, key: str, value: Any) -> None:
        try:
            self.config.with_values({key: value})
        except ConfigError as error:
            raise ConfigError(f"{self.at(arm)}: {error}") from None

    def _refuse_contradiction(self, arm: str, key: str, value: Any) -> None:
        if key in self.fixed and self.fixed[key] != value:
            raise ConfigError(
                f"{self.at(arm)} is about {key}={value}, but {key}={self.fixed[key]} was asked"
                " for. Leave that override out, or use a space without the arm."
            )

    def _count(self, arm: str, option: str, value: Any) -> int | None:
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
            return value
        raise ConfigError(f"{self.at(arm, option)} is {value!r}, expected a whole number from 1.")


def _exists(plain: Mapping[str, Any], key: Any) -> bool:
    try:
        return not isinstance(get_value(plain, str(key)), Mapping)
    except ConfigError:
        return False


def _key_hint(key: str, plain: Mapping[str, Any]) -> str:
    leaves = [leaf for leaf in _leaves(plain) if not leaf.startswith("datasets.datasets.")]
    last = key.rsplit(".", 1)[-1]
    same = [leaf for leaf in leaves if leaf.rsplit(".", 1)[-1] == last]
    return f" Did you mean '{same[0]}'?" if same else did_you_mean(key, leaves)


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
