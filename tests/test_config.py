"""What the configuration accepts, refuses, and says when it refuses."""

import pytest

from hsf_tune.config import config_from_dict, get_value, set_values
from hsf_tune.errors import ConfigError

DATASET = {
    "path": "p",
    "ca_type": "1/2/3",
    "patterns": {"left": {"mri": "*", "label": "*"}},
    "labels": {1: 1},
    "labels_names": {1: "DG"},
}
PLAIN = {"datasets": {"main_path": "x", "datasets": {"a": DATASET}}}


def test_a_configuration_survives_the_way_to_a_dict_and_back():
    config = config_from_dict(PLAIN)
    assert config_from_dict(config.to_dict()) == config


def test_a_checked_configuration_can_not_be_changed():
    config = config_from_dict(PLAIN)
    with pytest.raises(AttributeError):
        config.models.lr = 1.0


def test_with_values_changes_a_copy():
    config = config_from_dict(PLAIN)
    assert config.with_values({"models.lr": 0.1}).models.lr == 0.1
    assert config.models.lr == 1e-3


def test_out_channels_of_the_model_follow_finetunings():
    config = config_from_dict(PLAIN).with_values({"finetuning.out_channels": 8})
    assert config.models.out_channels == 8


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"models.lrr": 1}, r"unknown key 'lrr' in models\. Did you mean 'lr'"),
        ({"serach.folds": 2}, r"unknown key 'serach' in the configuration\. Did you mean 'search'"),
        ({"datasets.datasets.a.pth": "x"}, r"'pth' in datasets\.datasets\.a\. Did you mean 'path'"),
        (
            {"datasets.datasets.a.patterns.left.mrii": "x"},
            r"'mrii' in datasets\.datasets\.a\.patterns\.left\. Did you mean 'mri'",
        ),
        ({"models.lr": 0}, r"models\.lr is 0"),
        ({"models.lr": "fast"}, r"models\.lr is 'fast'"),
        ({"finetuning.depth": -2}, r"finetuning\.depth is -2"),
        ({"finetuning.unfreeze_frequency": -1}, r"unfreeze_frequency is -1"),
        ({"lightning.steps_per_epoch": 0}, r"steps_per_epoch is 0"),
        ({"finetuning.out_channels": 1}, r"out_channels is 1"),
        ({"finetuning.mode": "both"}, r"mode is 'both'; expected 'encoder', 'decoder' or 'full'"),
        ({"lightning.max_epochs": "long"}, r"max_epochs is 'long'"),
        ({"augmentation.flip.p": 1.5}, r"augmentation\.flip\.p is 1\.5"),
        ({"search.keep": [3, 6, 6]}, r"search\.keep is \[3, 6, 6\].*never rise"),
        ({"search.folds": 3}, r"search\.keep is .*expected 2 numbers"),
        ({"datasets.main_path": "???"}, r"datasets\.main_path is not set"),
        ({"datasets.datasets.a.ca_type": "1"}, r"ca_type is '1'; expected '1/2/3'"),
        ({"models.out_channels": 4}, r"models\.out_channels is 4, finetuning\.out_channels is 6"),
        ({"models.lr.high": 1}, r"'lr' holds the value .*not a group"),
        ({"name": "a/b"}, r"name is 'a/b'"),
    ],
)
def test_a_faulty_value_is_refused_by_key_with_what_was_expected(values, message):
    with pytest.raises(ConfigError, match=message):
        config_from_dict(PLAIN).with_values(values)


def test_all_faults_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        config_from_dict(PLAIN).with_values({"models.lr": -1, "finetuning.mode": "x", "sed": 1})
    assert len(str(error.value).splitlines()) == 3


def test_a_missing_key_of_a_dataset_is_named_with_its_place():
    broken = set_values(PLAIN, {})
    del broken["datasets"]["datasets"]["a"]["labels"]
    with pytest.raises(ConfigError, match=r"datasets\.datasets\.a\.labels is missing"):
        config_from_dict(broken)


def test_set_values_leaves_its_input_alone():
    before = repr(PLAIN)
    set_values(PLAIN, {"datasets.datasets.a.path": "other"})
    assert repr(PLAIN) == before


def test_get_value_answers_an_unknown_key_with_the_valid_ones():
    plain = config_from_dict(PLAIN).to_dict()
    assert get_value(plain, "finetuning.depth") == -1
    with pytest.raises(ConfigError, match=r"no key 'dept' in finetuning\. Did you mean 'depth'"):
        get_value(plain, "finetuning.dept")
