"""What is taken from a run that is over: its weights, its bag, its place as a base model."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import yaml

from hsf_tune.cli.winner import write_recommended
from hsf_tune.config import Config, config_from_dict
from hsf_tune.data.splits import Split
from hsf_tune.errors import ModelError, RunError
from hsf_tune.finetuning.base import get_base, local_checkpoint
from hsf_tune.finetuning.finished import (
    TrainedModel,
    best_weights,
    choose_bag,
    open_run,
)
from hsf_tune.finetuning.strategy import SavedStrategy, save_strategy
from hsf_tune.model.arunet import Architecture, ARUNet
from hsf_tune.model.weights import save
from hsf_tune.records import Records, TrialEnded, TrialStarted
from hsf_tune.strategy import Strategy, strategy_key

STRATEGY = Strategy({"finetuning.depth": 0, "lightning.max_epochs": 2, "models.lr": 0.01})
OTHER = Strategy({**STRATEGY, "models.lr": 0.02})


@dataclass
class RunFolder:
    """Writes a run as a search leaves it."""

    folder: Path
    config: Config
    number: int = field(default=0)

    def trial(
        self, name: str, phase: str, fold: int, seed: int = 0, strategy=STRATEGY, status="finished"
    ) -> Path:
        self.number += 1
        torch.manual_seed(self.number)
        path = self.folder / "checkpoints" / name / "final.safetensors"
        save(path, ARUNet(Architecture(f_maps=2, out_channels=3)), {"name": name})
        records = Records(self.folder)
        train = ["balls/sub-01", "balls/sub-02"]
        records.append(
            TrialStarted(name, phase, "head", strategy, fold, seed, 2, train, ["balls/sub-03"])
        )
        relative = f"checkpoints/{name}/final.safetensors"
        records.append(TrialEnded(name, status, dice=0.5, last_checkpoint=relative))
        return path

    def recommend(self, trial: str, strategy=STRATEGY) -> None:
        split = Split("explore", 1, ("balls/sub-01",), ("balls/sub-03",))
        save_strategy(
            self.folder / "best_strategy.yaml",
            SavedStrategy(
                strategy,
                self.config.to_dict(),
                split,
                0,
                1,
                "32-true",
                "random",
                "0",
                "0",
                arm="head",
                trial=trial,
            ),
        )


@pytest.fixture
def run_folder(tmp_path, config):
    folder = tmp_path / "outputs" / "search"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.to_dict()))
    (folder / "dataset.json").write_text(json.dumps({"splits": {"test": ["balls/sub-04"]}}))
    return RunFolder(folder, config)


def model(phase: str, fold: int, seed: int = 0) -> TrainedModel:
    return TrainedModel(Path(f"{phase}{fold}{seed}"), "t", phase, fold, seed, ())


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ([model("confirm", f, s) for f in (1, 2, 3, 4, 5) for s in (42, 43)], [1, 2, 3, 4, 5]),
        ([model("explore", f) for f in (1, 2, 3, 4)], [1, 2, 3]),
        ([model("explore", f) for f in (1, 2)], [1]),
        ([model("finetune", 1)], [1]),
        ([], []),
    ],
)
def test_bag_is_odd_and_has_one_model_a_fold(models, expected):
    """An even number of votes ties, so the last fold is dropped; never the worst one."""
    bag = choose_bag(models)
    assert [m.fold for m in bag] == expected
    assert {m.seed for m in bag} <= {0, 42}


def test_bag_prefers_confirmation_over_exploration():
    """Its folds leave out fewer subjects."""
    bag = choose_bag([model("explore", 1), model("confirm", 1)])
    assert [m.phase for m in bag] == ["confirm"]


def test_run_is_read_with_its_test_set_and_models(run_folder):
    """Only finished trials of the strategy asked for, with weights that are still there."""
    run_folder.trial("a", "explore", 1)
    run_folder.trial("b", "explore", 2, strategy=OTHER)
    run_folder.trial("c", "explore", 2, status="failed")
    run_folder.trial("d", "explore", 3).unlink()
    run_folder.recommend("a")
    run = open_run(run_folder.folder)
    assert run.test_subjects == ("balls/sub-04",)
    assert [m.trial for m in run.models_of(STRATEGY)] == ["a"]
    assert run.models_of(STRATEGY)[0].train == ("balls/sub-01", "balls/sub-02")


def test_finished_search_is_a_base_model(run_folder, plain_config):
    """models.checkpoint=outputs/NAME starts from the recommended trial's weights."""
    run_folder.trial("other", "explore", 1, strategy=OTHER)
    own = run_folder.trial("winner", "explore", 1)
    run_folder.recommend("winner")
    models = {**plain_config["models"], "checkpoint": str(run_folder.folder)}
    base = get_base(config_from_dict({**plain_config, "models": models}))
    assert base.name == "winner"
    assert base.source == str(own)


def test_exported_weights_stand_for_the_run(run_folder):
    """Trained on every subject, they come before a fold's; not those of another strategy."""
    run_folder.trial("winner", "explore", 1)
    run_folder.recommend("winner")
    exported = run_folder.folder / "export" / "export-1234"
    exported.mkdir(parents=True)
    (exported / "final.safetensors").touch()
    run = open_run(run_folder.folder)
    assert best_weights(run).parent.name == "winner", "the training has not ended"
    (exported / "ended.json").touch()
    assert best_weights(run).parent.name == "winner", "nobody knows of which strategy"
    (exported / "strategy.json").write_text(strategy_key(OTHER))
    assert best_weights(run).parent.name == "winner"
    (exported / "strategy.json").write_text(strategy_key(STRATEGY))
    assert best_weights(run).parent.name == "export-1234"


def test_paths_become_absolute_and_names_stay(tmp_path, monkeypatch):
    """A worker in another folder must find the same file."""
    monkeypatch.chdir(tmp_path)
    Path("base.safetensors").touch()
    assert local_checkpoint("base.safetensors") == str(tmp_path / "base.safetensors")
    assert local_checkpoint("bag_0") == "bag_0"
    assert local_checkpoint("https://host/x.ckpt") == "https://host/x.ckpt"


def test_folder_without_a_run_is_named_with_those_beside_it(run_folder):
    """A mistyped name is answered with the names there are."""
    run_folder.trial("a", "explore", 1)
    with pytest.raises(RunError, match=r"holds no run.*Runs beside it: search"):
        open_run(run_folder.folder.parent / "serach")


def test_a_run_that_recommends_not_to_finetune_says_so_and_keeps_no_older_strategy(run_folder):
    """The search went on and the base came out best: what it recommended before is not exported."""
    run_folder.trial("explore-head-001-f1", "explore", 1)
    run_folder.recommend("explore-head-001-f1")
    advice = {"arm": "base", "strategy": {}, "reason": "Don't finetune."}
    (run_folder.folder / "report.json").write_text(json.dumps({"recommendation": advice}))
    records = Records(run_folder.folder)
    assert not write_recommended(run_folder.folder, None, run_folder.config, records, {}, advice, 1)
    with pytest.raises(RunError, match=r"recommends not to finetune.*keep the base model"):
        open_run(run_folder.folder)


def test_running_search_has_no_recommendation_yet(run_folder):
    """It says how to let the search end."""
    run_folder.trial("a", "explore", 1)
    with pytest.raises(RunError, match="--resume search"):
        open_run(run_folder.folder)


def test_lost_weights_are_said_with_a_way_out(run_folder):
    """Checkpoints that were cleaned away can be trained again."""
    run_folder.trial("winner", "explore", 1).unlink()
    run_folder.recommend("winner")
    with pytest.raises(ModelError, match="--as single"):
        best_weights(open_run(run_folder.folder))


def test_weights_outside_of_the_run_are_not_taken(run_folder, tmp_path):
    """A run that names a file elsewhere as its last checkpoint."""
    path = run_folder.trial("a", "explore", 1)
    path.rename(tmp_path / "elsewhere.safetensors")
    path.symlink_to(tmp_path / "elsewhere.safetensors")
    run_folder.recommend("a")
    with pytest.raises(RunError, match="leads out of that folder"):
        best_weights(open_run(run_folder.folder))
