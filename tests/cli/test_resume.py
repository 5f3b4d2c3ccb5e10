"""What a run may go on with, and what would make its trials incomparable."""

import copy
import json

import pytest
import yaml

from hsf_tune.cli.resume import read_resumed, require_same_data
from hsf_tune.config import config_from_dict
from hsf_tune.errors import ConfigError, DataError

DATASET = {
    "key": "k1",
    "base": {"name": "demo", "sha256": "b" * 64},
    "cases": [{"id": f"d--s{i}", "sha256": f"{i}"} for i in range(3)],
    "splits": {"explore": [{"fold": 1, "train": ["d/s0"], "validate": ["d/s1"]}]},
}


@pytest.fixture
def run_folder(tmp_path, plain_config):
    folder = tmp_path / "outputs" / "first"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config_from_dict(plain_config).to_dict()))
    (folder / "dataset.json").write_text(json.dumps(DATASET))
    return folder


def read(folder, overrides=(), **flags):
    named = {key.replace("__", "."): value for key, value in flags.items()}
    return read_resumed(folder.name, str(folder.parent), named, overrides)


def test_resources_and_size_may_change(run_folder):
    """The number of strategies, the budget and the cluster touch no trial's numbers."""
    config, folder = read(
        run_folder,
        search__strategies_per_arm=20,
        search__address="10.0.0.1:6379",
        search__time_budget_s=None,
        seed=None,
    )
    assert folder == run_folder
    assert config.name == "first"
    assert config.search.strategies_per_arm == 20
    assert config.search.address == "10.0.0.1:6379"


@pytest.mark.parametrize(
    ("overrides", "flags", "message"),
    [(["models.lr=1e-2"], {}, "models.lr=1e-2"), ([], {"seed": 7}, "--seed 7, it was 42")],
)
def test_what_would_change_trials_is_refused(run_folder, overrides, flags, message):
    """The message names it and says what may change."""
    with pytest.raises(ConfigError, match=f"{message}.*What may change"):
        read(run_folder, overrides, **flags)


def test_unknown_run_is_answered_with_those_there_are(run_folder):
    (run_folder / "trials.jsonl").touch()
    with pytest.raises(ConfigError, match=r"holds no run. Runs there: first"):
        read_resumed("frist", str(run_folder.parent), {}, [])


def changed(**changes):
    now = copy.deepcopy(DATASET)
    now.update(changes)
    return now


CASES = DATASET["cases"]
CHANGES = {
    "missing: d--s2": changed(cases=CASES[:2], key="k2"),
    "new: d--s9": changed(cases=[*CASES, {"id": "d--s9", "sha256": "9"}], key="k2"),
    "changed: d--s1": changed(cases=[CASES[0], {"id": "d--s1", "sha256": "x"}, CASES[2]]),
    "the base model is other": changed(base={"name": "other", "sha256": "c" * 64}),
    "preprocessed otherwise": changed(key="k2"),
    "the splits differ": changed(splits={}),
}


@pytest.mark.parametrize(("message", "now"), CHANGES.items(), ids=list(CHANGES))
def test_other_data_are_refused_with_the_difference(run_folder, message, now):
    """Cases by name, the base, the preprocessing, the splits."""
    with pytest.raises(DataError, match=message):
        require_same_data(run_folder, now)


def test_same_data_pass(run_folder):
    require_same_data(run_folder, copy.deepcopy(DATASET))
