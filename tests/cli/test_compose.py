"""From command line words to one checked configuration."""

from pathlib import Path

import pytest
import yaml

from hsf_tune.cli.compose import compose_config, parse_overrides
from hsf_tune.data.splits import Split
from hsf_tune.errors import ConfigError
from hsf_tune.finetuning.strategy import SavedStrategy, save_strategy

DATASET = {
    "main_path": "./",
    "batch_size": 2,
    "k_sample": None,
    "datasets": {
        "a": {
            "path": "images",
            "ca_type": "1/23",
            "patterns": {"left": {"mri": "**/*mri.nii.gz", "label": "*seg.nii.gz"}},
            "labels": {1: 1, 2: 2},
            "labels_names": {1: "DG", 2: "CA"},
        }
    },
}


def compose(*words, **kwargs):
    return compose_config(parse_overrides(words), **kwargs)[0]


@pytest.fixture
def dataset_yaml(tmp_path):
    path = tmp_path / "study" / "my dataset.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(DATASET))
    return path


def test_the_documented_call_in_a_fresh_clone_names_main_path_and_nothing_else():
    words = [
        "datasets=custom_dataset",
        "finetuning.out_channels=8",
        "models.lr=1e-3",
        "models.use_forgiving_loss=False",
    ]
    with pytest.raises(ConfigError) as error:
        compose(*words)
    assert str(error.value).startswith("datasets.main_path is not set")
    assert len(str(error.value).splitlines()) == 1


def test_the_documented_call_with_main_path_is_understood_to_the_value(tmp_path):
    config = compose(
        "datasets=custom_dataset",
        f"datasets.main_path={tmp_path}",
        "finetuning.out_channels=8",
        "models.lr=1e-3",
        "models.use_forgiving_loss=False",
    )
    assert (config.finetuning.out_channels, config.models.out_channels) == (8, 8)
    assert config.models.lr == 0.001
    assert config.models.use_forgiving_loss is False
    assert config.datasets.datasets["clark"].labels_names[7] == "KYST"
    assert config.datasets.batch_size == 1


def test_the_defaults_are_hsfs_documented_advice(tmp_path):
    config = compose("datasets=custom_dataset", f"datasets.main_path={tmp_path}")
    tuned = config.finetuning
    assert (tuned.mode, tuned.depth, tuned.unfreeze_frequency) == ("decoder", -1, 4)
    assert (tuned.out_channels, config.models.lr) == (6, 1e-3)
    assert config.lightning.max_epochs == "auto"
    assert config.lightning.accumulate_grad_batches == 4


def test_a_dataset_given_by_path_has_its_main_path_beside_it(dataset_yaml):
    config = compose(f"datasets='{dataset_yaml}'")
    assert Path(config.datasets.main_path) == dataset_yaml.parent
    assert config.datasets.batch_size == 2


def test_a_dataset_in_a_config_folder_is_found_by_name(tmp_path):
    folder = tmp_path / "datasets"
    folder.mkdir()
    (folder / "mine.yaml").write_text(yaml.safe_dump(DATASET))
    config = compose("datasets=mine", config_dir=tmp_path)
    assert Path(config.datasets.main_path) == folder


def test_main_path_on_the_command_line_wins_over_the_files(dataset_yaml, tmp_path):
    config = compose(f"datasets='{dataset_yaml}'", f"datasets.main_path={tmp_path}/other")
    assert config.datasets.main_path == str(tmp_path / "other")


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ({}, 1e-3),
        ({"hint": 2e-3}, 2e-3),
        ({"hint": 2e-3, "space": 3e-3}, 3e-3),
        ({"hint": 2e-3, "space": 3e-3, "override": 4e-3}, 4e-3),
        ({"hint": 2e-3, "space": 3e-3, "override": 4e-3, "flag": 5e-3}, 5e-3),
        ({"space": 3e-3, "flag": 5e-3}, 5e-3),
    ],
)
def test_later_settings_win_over_earlier_ones(tmp_path, layers, expected):
    """defaults < dataset hints < space < overrides < flags."""
    hints = {"models": {"lr": layers["hint"]}} if "hint" in layers else {}
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump({**DATASET, **hints}))
    words = [f"datasets={path}"]
    if "override" in layers:
        words.append(f"models.lr={layers['override']}")
    config = compose(
        *words,
        space_constants={"models.lr": layers["space"]} if "space" in layers else None,
        flags={"models.lr": layers.get("flag")},
    )
    assert config.models.lr == expected


@pytest.mark.parametrize(
    ("words", "flag", "seed"), [([], None, 5), (["seed=6"], None, 6), (["seed=6"], 7, 7)]
)
def test_the_seed_of_a_strategy_file_gives_way_to_the_command_line(
    dataset_yaml, tmp_path, words, flag, seed
):
    path = tmp_path / "best.yaml"
    config = compose(f"datasets='{dataset_yaml}'").to_dict()
    split = Split("finetune", 1, ("a/1",), ())
    saved = SavedStrategy({"models.lr": 0.02}, config, split, 5, 1, "32-true", "", "", "")
    save_strategy(path, saved)
    found = compose(f"strategy={path}", *words, flags={"seed": flag})
    assert (found.seed, found.models.lr) == (seed, 0.02)


def test_a_strategy_file_of_before_steps_were_counted_keeps_one_pass_an_epoch(
    dataset_yaml, tmp_path
):
    config = compose(f"datasets='{dataset_yaml}'").to_dict()
    del config["lightning"]["steps_per_epoch"]
    split = Split("finetune", 1, ("a/1",), ())
    saved = SavedStrategy({"models.lr": 0.02}, config, split, 5, 1, "32-true", "", "", "")
    save_strategy(tmp_path / "best.yaml", saved)
    assert compose(f"strategy={tmp_path / 'best.yaml'}").lightning.steps_per_epoch == 1


def test_a_dataset_hint_moves_out_channels_of_both_groups(tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump({**DATASET, "finetuning": {"out_channels": 3}}))
    config = compose(f"datasets={path}")
    assert (config.finetuning.out_channels, config.models.out_channels) == (3, 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["models.lrr=1"], r"models\.lrr: unknown key.*Did you mean 'lr'"),
        (["datasets.datasets.clark.pth=x"], r"unknown key 'pth'.*Did you mean 'path'"),
        (["finetuning.mode=encodr"], r"finetuning\.mode is 'encodr'; expected 'encoder'"),
        (["datasets=custom_datset"], r"no file datasets/custom_datset\.yaml.*custom_dataset"),
        (["models=demoo"], r"no file models/demoo\.yaml.*Did you mean 'demo'"),
        (["datasets=/nowhere/data.yaml"], r"datasets=/nowhere/data\.yaml: no such file"),
        (["lightning.precision=bf16-true"], r"bf16-true weights lose small updates"),
        (["modelslr"], r"'modelslr' on the command line can't be read.*key=value"),
        (["models.lr=1,2"], r"expected key=value with one value"),
        (["models.lr=-1"], r"models\.lr is -1"),
    ],
)
def test_a_fault_on_the_command_line_is_named(tmp_path, words, message):
    words = ["datasets=custom_dataset", f"datasets.main_path={tmp_path}", *words]
    with pytest.raises(ConfigError, match=message):
        compose(*words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("main_path: ./\ndatasets:\n  a: [1, 2\n", r"data\.yaml, line \d"),
        ("", r"data\.yaml holds no keys"),
        ("- 1\n", r"data\.yaml holds no keys"),
        ("main_path: ./\nbatch_sise: 2\ndatasets: {}\n", r"batch_sise.*Did you mean 'batch_size'"),
        ("datasets: {}\n", r"datasets\.main_path"),
        ("main_path: ./\ndatasets: {}\n", r"datasets\.datasets is empty"),
    ],
)
def test_a_faulty_dataset_file_is_named_with_its_line_or_key(tmp_path, text, message):
    path = tmp_path / "data.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        compose(f"datasets={path}")
