"""What files that somebody else handed over can't do: read the environment, send, choose places."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import yaml

from hsf_tune.cli.commands import run as run_command
from hsf_tune.cli.compose import HINTS, compose_config, parse_overrides
from hsf_tune.config import StoreConfig, TrackingConfig, config_from_dict
from hsf_tune.data.splits import Split
from hsf_tune.errors import ConfigError
from hsf_tune.finetuning.strategy import SavedStrategy, load_strategy, save_strategy
from hsf_tune.records import Records, TrialStarted
from hsf_tune.report.run import read_run

ELSEWHERE = {
    "tracking": {"uri": "http://elsewhere:5000"},
    "store": {"path": "/elsewhere", "limit_gb": 0.001},
    "search": {"address": "elsewhere:6379", "state_dir": "/elsewhere"},
    "output": "/elsewhere",
    "name": "elsewhere",
}

DATASET = {
    "key": "", "base": {"name": "x", "sha256": "x"}, "cases": [],
    "splits": {"test": [], "explore": [], "confirm": [], "notes": []},
}  # fmt: skip


def compose(*words, **more):
    return compose_config(parse_overrides([str(word) for word in words]), **more)[0]


@pytest.fixture
def write(tmp_path, plain_config):
    """A dataset's YAML with something added to it."""

    def write(**more):
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({**plain_config["datasets"], **more}))
        return path

    return write


@pytest.fixture
def saved(plain_config):
    """A strategy whose file its author has changed."""
    config = {**config_from_dict(plain_config).to_dict(), **ELSEWHERE}
    config["search"] = {**config_from_dict(plain_config).to_dict()["search"], **ELSEWHERE["search"]}
    split = Split("finetune", 1, ("a/1",), ())
    return SavedStrategy({"models.lr": 0.02}, config, split, 5, 1, "32-true", "", "", "")


def write_as_it_is(path, saved):
    plain = {**asdict(saved), "split": saved.split.to_dict(), "strategy": dict(saved.strategy)}
    path.write_text(yaml.safe_dump(plain))


@pytest.mark.parametrize(
    "hint",
    [
        {"search": {"address": "elsewhere:6379"}}, {"search": {"state_dir": "/elsewhere"}},
        {"search": {"max_concurrent": 100}}, {"models": {"checkpoint": "https://elsewhere/x.ckpt"}},
        {"lightning": {"accelerator": "gpu"}}, {"finetuning": {"new": 1}},
    ],
)  # fmt: skip
def test_a_dataset_suggests_nothing_but_what_is_listed(write, hint):
    """The message names the key and what may be suggested."""
    ((group, keys),) = hint.items()
    with pytest.raises(ConfigError, match=rf"suggests {group}\.{next(iter(keys))}; expected some"):
        compose(f"datasets={write(**hint)}")


@pytest.mark.parametrize("group", ["tracking", "store", "output", "name"])
def test_a_dataset_has_no_word_on_places(write, group):
    """They are no keys of a dataset at all."""
    with pytest.raises(ConfigError, match=rf"datasets\.{group}: unknown key"):
        compose(f"datasets={write(**{group: ELSEWHERE[group]})}")


def test_every_suggestion_that_is_listed_is_a_key():
    """A key that was renamed would refuse what it promises."""
    plain = compose("datasets.main_path=x").to_dict()
    assert all(key in plain[group] for group, keys in HINTS.items() for key in keys)


def test_no_file_reads_the_environment(write, tmp_path, saved, monkeypatch):
    """As dataset, strategy or group of --config-dir; the message does not hold the secret."""
    monkeypatch.setenv("SECRET", "s3cret")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.yaml").write_text("checkpoint: ${oc.env:SECRET}\n")
    strategy = tmp_path / "best.yaml"
    plain = {**saved.config, "models": {**saved.config["models"], "checkpoint": "${oc.env:SECRET}"}}
    write_as_it_is(strategy, replace(saved, config=plain))
    calls = [
        ([f"datasets={write(output_path='${oc.env:SECRET}')}"], {}),
        ([f"strategy={strategy}"], {}),
        (["models=mine", "datasets.main_path=x"], {"config_dir": tmp_path}),
        (["datasets.main_path=x"], {"space_constants": {"models.checkpoint": "${oc.env:SECRET}"}}),
    ]
    for words, more in calls:
        with pytest.raises(ConfigError, match="can't be filled in") as error:
            compose(*words, **more)
        assert "s3cret" not in str(error.value)


def test_a_strategy_file_chooses_no_place(tmp_path, saved):
    """What it holds beside the study is not used, and what sets it as a strategy is refused."""
    path = tmp_path / "best.yaml"
    write_as_it_is(path, saved)
    config = compose(f"strategy={path}")
    assert (config.tracking, config.store) == (TrackingConfig(), StoreConfig())
    assert (config.search.address, config.search.state_dir) == (None, None)
    assert (config.output, config.name, config.models.lr) == ("outputs", None, 0.02)
    write_as_it_is(path, replace(saved, strategy={"tracking.uri": "http://elsewhere"}))
    with pytest.raises(ConfigError, match=r"sets tracking\.uri"):
        load_strategy(path)


def test_a_strategy_file_is_written_without_tracking(tmp_path, saved):
    """Nor with any other place of whoever wrote it."""
    path = tmp_path / "best.yaml"
    save_strategy(path, saved)
    assert "elsewhere" not in path.read_text()


def test_a_search_space_chooses_no_place():
    """A space is handed over, too."""
    with pytest.raises(ConfigError, match=r"search space sets tracking\.uri"):
        compose("datasets.main_path=x", space_constants={"tracking.uri": "http://elsewhere"})


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.write_bytes(b"\xff\x00\x81"),
        lambda p: p.mkdir(),
        lambda p: p.write_text(p_text("config", [1])),
        lambda p: p.write_text(p_text("strategy", "x")),
        lambda p: p.write_text(p_text("split", 3)),
    ],
    ids=["binary", "a folder", "config: [1]", "a word for a strategy", "a number for a split"],
)
def test_a_strategy_file_that_is_none_is_answered_in_a_sentence(change, tmp_path, capsys):
    """No traceback; exit code 1."""
    path = tmp_path / "best.yaml"
    change(path)
    with pytest.raises(SystemExit) as end:
        run_command("finetune", [f"strategy={path}"])
    assert end.value.code == 1
    assert "is not a strategy file" in capsys.readouterr().err


def p_text(key, value):
    split = Split("finetune", 1, ("a/1",), ()).to_dict()
    plain = asdict(SavedStrategy({}, {}, None, 5, 1, "32-true", "", "", ""))
    return yaml.safe_dump({**plain, "strategy": {}, "split": split, key: value})


@pytest.fixture
def foreign(tmp_path, plain_config, monkeypatch):
    """A run's folder that came from elsewhere, in the usual place."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs" / "theirs"
    folder.mkdir(parents=True)
    plain = config_from_dict(plain_config).to_dict()
    plain |= {"tracking": ELSEWHERE["tracking"], "store": ELSEWHERE["store"]}
    plain["search"] |= ELSEWHERE["search"]
    (folder / "config.yaml").write_text(yaml.safe_dump(plain))
    (folder / "dataset.json").write_text(json.dumps(DATASET))
    started = TrialStarted("t-1", "explore", "head", {"models.lr": 1e-3}, 1, 0, 2, [], [])
    Records(folder).append(started)
    return folder


def test_a_report_of_a_foreign_run_uses_the_readers_own_store(foreign):
    """It would fill, and empty, a folder that somebody else chose."""
    config = read_run(foreign).config
    assert config.store == StoreConfig()
    assert (config.search.address, config.search.state_dir) == (None, None)


def test_resuming_a_foreign_run_asks_before_its_server_is_called(foreign, capsys):
    """The address is named, and what to add if it is one's own."""
    with pytest.raises(SystemExit) as end:
        run_command("tune", ["--resume", "theirs", "--dry-run"])
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert "theirs is tracked at http://elsewhere:5000" in said
    assert "go on with tracking.uri=http://elsewhere:5000" in said
