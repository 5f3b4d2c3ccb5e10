"""Strategies that train the same thing are one."""

from dataclasses import replace

import pytest

from hsf_tune.config import config_from_dict, without_places
from hsf_tune.data.splits import Split
from hsf_tune.errors import ConfigError
from hsf_tune.finetuning.strategy import SavedStrategy, canonical, load_strategy, save_strategy
from hsf_tune.modes import Halves, n_blocks
from hsf_tune.strategy import DOCUMENTED_DEFAULT, strategy_key

BLOCKS = n_blocks(Halves(tuple("abcd"), tuple("efg")))
DATASET = {
    "path": "p",
    "ca_type": "1/2/3",
    "patterns": {"left": {"mri": "*", "label": "*"}},
    "labels": {1: 1},
    "labels_names": {1: "DG"},
}
CONFIG = config_from_dict({"datasets": {"main_path": "x", "datasets": {"a": DATASET}}})


def same(a, b):
    return strategy_key(canonical(a, CONFIG, BLOCKS)) == strategy_key(canonical(b, CONFIG, BLOCKS))


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ({"finetuning.depth": -1}, {"finetuning.depth": 3}, True),
        ({"finetuning.depth": -1}, {"finetuning.depth": 2}, False),
        (
            {"finetuning.mode": "encoder", "finetuning.depth": -1},
            {"finetuning.depth": 4, "finetuning.mode": "encoder"},
            True,
        ),
        (
            {"finetuning.depth": 0, "finetuning.mode": "encoder", "lightning.max_epochs": 8},
            {"finetuning.depth": 0, "finetuning.mode": "decoder", "lightning.max_epochs": 8},
            True,
        ),
        (
            {"finetuning.depth": 0, "finetuning.unfreeze_frequency": 2, "lightning.max_epochs": 8},
            {"finetuning.depth": 0, "finetuning.unfreeze_frequency": 4, "lightning.max_epochs": 8},
            True,
        ),
        ({"lightning.max_epochs": "auto"}, {"lightning.max_epochs": 16}, True),
        ({"lightning.max_epochs": 16}, {"lightning.max_epochs": 20}, False),
        ({"models.lr": 1e-3}, {"models.lr": 0.001}, True),
        ({"models.lr": 1e-3}, {"models.lr": 2e-3}, False),
    ],
)
def test_strategies_are_equal_when_they_train_the_same_thing(a, b, equal):
    assert same(a, b) is equal


def test_the_canonical_form_is_its_own_canonical_form():
    once = canonical(DOCUMENTED_DEFAULT, CONFIG, BLOCKS)
    assert canonical(once, CONFIG, BLOCKS) == once


@pytest.mark.parametrize(
    ("depth", "frequency", "epochs", "fits"),
    [(4, 4, 20, True), (4, 4, 19, False), (7, 2, 16, True), (7, 4, 20, False), (0, 1, 1, True)],
)
def test_openings_fit_where_the_last_block_has_its_full_frequency(depth, frequency, epochs, fits):
    strategy = canonical(
        {
            "finetuning.mode": "full",
            "finetuning.depth": depth,
            "finetuning.unfreeze_frequency": frequency,
            "lightning.max_epochs": epochs,
        },
        CONFIG,
        BLOCKS,
    )
    assert strategy.opens_all is fits


def test_a_saved_strategy_is_read_back_equal(tmp_path):
    saved = SavedStrategy(
        strategy=canonical(DOCUMENTED_DEFAULT, CONFIG, BLOCKS),
        config=CONFIG.to_dict(),
        split=Split("explore", 1, ("a/sub-01", "a/sub-03"), ("a/sub-02",)),
        seed=7,
        threads=1,
        precision="32-true",
        base_name="demo",
        base_sha256="ab" * 32,
        dataset_key="k",
        arm="decoder",
        explored_dice=0.5,
    )
    path = tmp_path / "best_strategy.yaml"
    save_strategy(path, saved)
    assert load_strategy(path) == replace(saved, config=without_places(saved.config))


@pytest.mark.parametrize("text", ["", "- 1\n", "strategy: {}\n", "a: [\n"])
def test_a_file_that_is_no_strategy_is_refused_by_name(tmp_path, text):
    path = tmp_path / "other.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"other\.yaml is not a strategy file"):
        load_strategy(path)


def test_a_missing_strategy_file_says_what_was_expected(tmp_path):
    with pytest.raises(ConfigError, match=r"no such file.*best_strategy\.yaml"):
        load_strategy(tmp_path / "none.yaml")


def test_a_strategy_is_described_in_words_that_users_know():
    text = canonical(DOCUMENTED_DEFAULT, CONFIG, BLOCKS).describe()
    assert text == "decoder, depth 3, a block every 4 epochs, lr 0.001"
