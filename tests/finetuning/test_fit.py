"""One trial from start to end: what trains, what is recorded, and that it goes on as it was."""

import contextlib
import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hsf_tune.data.cases import find_cases
from hsf_tune.data.splits import Split
from hsf_tune.data.store import open_store
from hsf_tune.errors import DataError, Diverged, HsfTuneError
from hsf_tune.finetuning.base import blocks_of, get_base
from hsf_tune.finetuning.fit import fit, place
from hsf_tune.finetuning.strategy import canonical
from hsf_tune.model.weights import build_network
from hsf_tune.records import EpochEnded, TrialEnded, TrialSpec, TrialStarted, Warned, mean_dice

SPLIT = Split("explore", 1, ("balls/sub-01", "balls/sub-02", "balls/sub-03"), ("balls/sub-04",))


def spec_of(config, seed=3, split=SPLIT, **values):
    values = {key.replace("__", "."): value for key, value in values.items()}
    strategy = canonical(values, config, blocks_of(get_base(config)))
    return TrialSpec("explore-x-001-f1", "x", strategy, split, seed)


def run(config, spec, folder, on_event=None, **kwargs):
    events = []

    def record(event):
        events.append(event)
        if on_event:
            on_event(event)

    ended = fit(config, spec, folder, record, **kwargs)
    return ended, events


def weights_before(config, spec):
    network = build_network(get_base(config), config.models.out_channels, seed=spec.seed)
    return {k: v.clone() for k, v in network.state_dict().items()}


def moved(before, path):
    after = {k.removeprefix("_model."): v for k, v in load_file(path).items()}
    return {k for k in before if not torch.equal(before[k], after[k])}


MODES = {
    "encoder": ["encoders.0", "encoders.1", "encoders.2", "encoders.3"],
    "decoder": ["decoders.2", "decoders.1", "decoders.0"],
    "full": ["decoders.2", "decoders.1", "decoders.0", "encoders.3"],
}


@pytest.mark.parametrize(
    ("mode", "depth", "frequency", "epochs", "opened"),
    [
        ("decoder", 0, 1, 1, 0),
        ("decoder", 1, 1, 2, 1),
        ("encoder", 2, 1, 3, 2),
        ("encoder", 1, 2, 3, 1),
        ("full", 4, 1, 3, 2),
        ("decoder", 3, 2, 2, 0),
        ("decoder", 2, 0, 1, 2),
    ],
)
def test_exactly_the_open_blocks_move_and_each_from_its_first_epoch(
    config, tmp_path, mode, depth, frequency, epochs, opened
):
    """Also in runs of one, two and three epochs, where the last block has one epoch only."""
    spec = spec_of(
        config,
        finetuning__mode=mode,
        finetuning__depth=depth,
        finetuning__unfreeze_frequency=frequency,
        lightning__max_epochs=epochs,
    )
    before = weights_before(config, spec)
    run(config, spec, tmp_path / "t")
    changed = moved(before, tmp_path / "t" / "final.safetensors")
    open_blocks = MODES[mode][:opened]
    for name in before:
        block = ".".join(name.split(".")[:2]) if not name.startswith("final") else "final_conv"
        if block == "final_conv" and "weight" in name:
            assert name in changed
        elif block not in [*open_blocks, "final_conv"]:
            assert name not in changed
    for block in open_blocks:
        weights = [n for n in before if n.startswith(block + ".") and n.endswith("conv.weight")]
        assert weights
        assert set(weights) <= changed


def test_events_tell_start_each_epoch_and_end_in_order(config, tmp_path):
    spec = spec_of(config, finetuning__depth=1, finetuning__unfreeze_frequency=2)
    _, events = run(config, spec, tmp_path / "t")
    assert [type(e) for e in events] == [TrialStarted, *[EpochEnded] * 4, TrialEnded]
    assert [e.epoch for e in events[1:-1]] == [0, 1, 2, 3]
    metrics = events[2].metrics
    assert {"train_loss", "val_loss", "val_dice", "val_dice/DG", "val_dice/CA"} <= set(metrics)
    assert {"lr/final_conv", "lr/decoders.2", "open_blocks", "epoch_seconds"} <= set(metrics)
    assert [e.metrics["open_blocks"] for e in events[1:-1]] == [0, 0, 1, 1]
    assert metrics["lr/decoders.2"] == 0 < events[3].metrics["lr/decoders.2"]
    assert events[0].opening_epochs == {"final_conv": 0, "decoders.2": 2}


def test_the_score_that_ranks_is_the_last_epochs(config, tmp_path):
    ended, events = run(config, spec_of(config), tmp_path / "t")
    curve = [e.metrics["val_dice"] for e in events if isinstance(e, EpochEnded)]
    assert ended.dice == pytest.approx(curve[-1], abs=1e-6)
    assert ended.dice == pytest.approx(mean_dice(ended.scores), abs=1e-12)
    assert ended.best_dice == max(curve)
    assert ended.best_epoch == int(np.argmax(curve))


def test_learning_is_real(config, tmp_path):
    """Nested balls of plain intensity are learnt from random weights by a network of 2 channels."""
    spec = spec_of(
        config,
        finetuning__mode="full",
        finetuning__depth=7,
        finetuning__unfreeze_frequency=1,
        lightning__max_epochs=12,
        models__lr=3e-2,
        lightning__accumulate_grad_batches=1,
    )
    ended, events = run(config, spec, tmp_path / "t")
    losses = [e.metrics["train_loss"] for e in events if isinstance(e, EpochEnded)]
    dice = [e.metrics["val_dice"] for e in events if isinstance(e, EpochEnded)]
    assert losses[-1] < 0.75 * losses[0]
    assert ended.dice > dice[0] + 0.2


class Killed(Exception):
    pass


@pytest.mark.parametrize("stop_after", [0, 1, 2, 3])
def test_a_resumed_trial_equals_the_uninterrupted_one_to_the_last_digit(
    config, tmp_path, stop_after
):
    """Stopped before, at and after the opening of a block at epoch 2, and at the last epoch."""
    spec = spec_of(config, finetuning__depth=1, finetuning__unfreeze_frequency=2)

    def stop(event):
        if isinstance(event, EpochEnded) and event.epoch == stop_after:
            raise Killed

    whole, events = run(config, spec, tmp_path / "whole")
    with pytest.raises(Killed):
        run(config, spec, tmp_path / "parts", stop)
    torch.rand(7)  # whatever ran in between must not matter
    np.random.default_rng().random(3)
    ended, later = run(config, spec, tmp_path / "parts")
    assert later[1].epoch == stop_after, "the last epoch is told again"

    def curve(events):
        kept = {e.epoch: dict(e.metrics) for e in events if isinstance(e, EpochEnded)}
        for metrics in kept.values():
            metrics.pop("epoch_seconds")
        return kept

    assert curve(later) == {k: v for k, v in curve(events).items() if k >= stop_after}
    assert ended.dice == whole.dice
    assert (ended.best_dice, ended.best_epoch) == (whole.best_dice, whole.best_epoch)
    assert ended.epochs == whole.epochs
    a, b = (load_file(tmp_path / d / "final.safetensors") for d in ("whole", "parts"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_kill_before_the_end_is_written_keeps_the_trained_state(config, tmp_path, monkeypatch):
    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("hsf_tune.finetuning.fit.write_text", killed)
        with pytest.raises(Killed):
            run(config, spec_of(config), tmp_path / "t")
    _, events = run(config, spec_of(config), tmp_path / "t")
    assert [e.epoch for e in events if isinstance(e, EpochEnded)] == [3]
    assert not (tmp_path / "t" / "last.ckpt").exists()


def test_a_trial_that_goes_on_elsewhere_keeps_the_precision_it_began_in(
    config, tmp_path, monkeypatch
):
    """Begun where `auto` means bf16-mixed, continued where it means full precision."""

    def kill(event):
        if isinstance(event, EpochEnded):
            raise Killed

    def place_on_a_newer_gpu(config, threads):
        return replace(place(config, threads), precision="bf16-mixed")

    with monkeypatch.context() as patch:
        patch.setattr("hsf_tune.finetuning.setup.place", place_on_a_newer_gpu)
        with pytest.raises(Killed):
            run(config, spec_of(config), tmp_path / "t", kill)
    ended, events = run(config, spec_of(config), tmp_path / "t")
    assert events[0].precision == "bf16-mixed"
    assert (ended.status, ended.epochs) == ("finished", 4)


def test_an_ended_trial_is_not_run_again(config, tmp_path):
    spec = spec_of(config)
    first, _ = run(config, spec, tmp_path / "t")
    again, events = run(config, spec, tmp_path / "t")
    assert [type(e) for e in events] == [TrialStarted, TrialEnded]
    assert again.dice == first.dice
    assert list(again.scores) == list(first.scores)


def test_a_folder_of_another_trial_is_refused_and_left_alone(config, tmp_path):
    run(config, spec_of(config), tmp_path / "t")
    content = (tmp_path / "t" / "ended.json").read_text()
    with pytest.raises(HsfTuneError, match=r"other settings or other data"):
        run(config, spec_of(config, seed=4), tmp_path / "t")
    assert (tmp_path / "t" / "ended.json").read_text() == content


def test_a_loss_that_is_not_a_number_ends_the_trial_with_its_epoch(config, tmp_path):
    base = get_base(config)
    key = next(k for k in base.state_dict if k.endswith("final_conv.bias"))
    kept = base.state_dict[key].clone()
    base.state_dict[key].fill_(float("nan"))
    try:
        with pytest.raises(Diverged, match=r"loss became nan in epoch 0"):
            run(config, spec_of(config), tmp_path / "t")
    finally:
        base.state_dict[key].copy_(kept)


def test_a_trial_told_to_stop_is_pruned_with_the_reason_and_its_score(config, tmp_path):
    asked = []

    def should_stop():
        asked.append(1)
        return "below the median" if len(asked) == 2 else None

    ended, _ = run(config, spec_of(config), tmp_path / "t", should_stop=should_stop)
    assert (ended.status, ended.reason, ended.epochs) == ("pruned", "below the median", 2)
    assert ended.dice is not None


def test_the_unchanged_base_is_a_trial_of_no_epochs(config, tmp_path):
    spec = TrialSpec("base-f1", "base", {}, SPLIT, 3)
    before = weights_before(config, spec)
    ended, events = run(config, spec, tmp_path / "t")
    assert [type(e) for e in events] == [TrialStarted, TrialEnded]
    assert ended.epochs == 0
    assert ended.parameters_trained == 0
    assert 0 <= ended.dice < 0.5
    assert before


def test_training_on_all_subjects_validates_nothing(config, tmp_path):
    everyone = tuple(sorted({c.subject for c in find_cases(config.datasets)}))
    split = Split("finetune", 1, everyone, ())
    ended, events = run(config, spec_of(config, split=split), tmp_path / "t")
    assert ended.status == "finished"
    assert ended.dice is None
    assert "val_loss" not in events[1].metrics
    assert (tmp_path / "t" / "final.safetensors").exists()


def test_the_same_trial_twice_gives_the_same_numbers(config, tmp_path):
    """Also with other work in between, as in a reused worker."""
    first, _ = run(config, spec_of(config), tmp_path / "a")
    run(config, spec_of(config, seed=99), tmp_path / "b")
    second, _ = run(config, spec_of(config), tmp_path / "c")
    assert first.dice == second.dice
    a, c = (load_file(tmp_path / d / "final.safetensors") for d in ("a", "c"))
    assert all(torch.equal(a[k], c[k]) for k in a)


def test_saved_weights_say_what_they_are(config, tmp_path):
    from safetensors import safe_open

    run(config, spec_of(config), tmp_path / "t")
    with safe_open(tmp_path / "t" / "best.safetensors", "pt") as file:
        about = file.metadata()
    assert json.loads(about["labels_names"]) == {"1": "DG", "2": "CA"}
    assert about["name"] == "explore-x-001-f1"
    assert "decoder" in json.loads(about["training"])["strategy"]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_batches_of_several_crops_train_too(config, tmp_path, batch_size):
    several = config.with_values({"datasets.batch_size": batch_size})
    ended, _ = run(several, spec_of(several), tmp_path / "t")
    assert ended.status == "finished"


def test_a_trial_inside_a_slurm_job_of_several_nodes_is_a_trial_as_any_other(
    config, tmp_path, monkeypatch
):
    """Lightning would take the job's variables for its own distributed training, and refuse."""
    spec = spec_of(config, finetuning__depth=0, lightning__max_epochs=1)
    alone, _ = run(config, spec, tmp_path / "alone")
    job = {"JOB_ID": 7, "JOB_NAME": "hsf", "NTASKS": 3, "NNODES": 4}
    for name, value in {**job, "PROCID": 1, "LOCALID": 0, "NODEID": 1}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    within, _ = run(config, spec, tmp_path / "within")
    assert within.dice == alone.dice
    assert within.scores == alone.scores


def test_an_epoch_has_the_optimiser_steps_that_were_asked_for(config, tmp_path):
    """6 crops, batches of one: 5 steps an epoch go round a second time, each batch a step."""
    config = config.with_values({"lightning.steps_per_epoch": 9, "lightning.max_epochs": 2})
    spec = spec_of(config, finetuning__depth=0)
    _, events = run(config, spec, tmp_path / "t")
    assert events[0].steps == 18
    rates = [e.metrics["lr/final_conv"] for e in events if isinstance(e, EpochEnded)]
    # the rate of an epoch's last step, 8 and 17 of 18: one step of warm-up, then the cosine
    cosine = [0.5 * (1 + math.cos(math.pi * (step - 1) / 17)) for step in (8, 17)]
    assert rates == pytest.approx([1e-2 * share for share in cosine])


def test_random_weights_differ_by_seed_and_fit_the_architecture_asked_for(config):
    values = {"models.checkpoint": "none", "models.f_maps": 2}
    base = get_base(config.with_values(values))
    first, again, other = (build_network(base, 3, seed=seed).state_dict() for seed in (1, 1, 2))
    assert base.architecture.f_maps == 2
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["final_conv.weight"], other["final_conv.weight"])
    assert not torch.equal(
        first["encoders.0.basic_module.conv1.conv.weight"],
        other["encoders.0.basic_module.conv1.conv.weight"],
    )


class TouchesAFile:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mknod, (self.path,)


def test_a_saved_state_runs_no_code_whatever_the_environment_says(config, tmp_path, monkeypatch):
    """A folder from somebody else, and PyTorch's older default switched on."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    (tmp_path / "t").mkdir()
    torch.save({"state_dict": TouchesAFile(tmp_path / "sprung")}, tmp_path / "t" / "last.ckpt")
    with contextlib.suppress(Exception):
        run(config, spec_of(config), tmp_path / "t")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("last.ckpt", b""),
        ("last.ckpt", None),
        ("last.ckpt", b"not a checkpoint"),
        ("trial.json", b""),
        ("trial.json", b'{"trial": "t"}'),
        ("ended.json", b""),
        ("ended.json", b'{"event": "note", "about": "x"}'),
    ],
    ids=str,
)
def test_a_state_that_cannot_be_read_is_set_aside_and_the_trial_trained_anew(
    config, tmp_path, file, content
):
    """Empty, cut to its half (None), of another form: a power cut or a full disk left it so."""

    def kill(event):
        if isinstance(event, EpochEnded) and event.epoch == 1:
            raise Killed

    spec = spec_of(config, lightning__max_epochs=2)
    whole, _ = run(config, spec, tmp_path / "whole")
    with pytest.raises(Killed):
        run(config, spec, tmp_path / "t", kill)
    path = tmp_path / "t" / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    damaged = path.read_bytes()
    ended, events = run(config, spec, tmp_path / "t")
    assert (ended.status, ended.dice, ended.epochs) == ("finished", whole.dice, 2)
    assert (tmp_path / "t" / f"{file}.unreadable-1").read_bytes() == damaged
    notes = [e.text for e in events if isinstance(e, Warned)]
    assert any(f"{file}.unreadable-1 could not be read" in text for text in notes)


def test_a_disk_that_fails_says_nothing_of_a_state(config, tmp_path, monkeypatch):
    """The state stays where it is, for the time when the disk is back."""
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "last.ckpt").write_bytes(b"x")

    def fail(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(OSError, match="Input/output"):
        run(config, spec_of(config), tmp_path / "t")
    assert (tmp_path / "t" / "last.ckpt").exists()


def test_other_data_than_the_run_began_with_is_not_trained_on(config, tmp_path):
    """A worker is told the run's fingerprint; the trial has not begun."""
    store = open_store(find_cases(config.datasets), config.datasets, config.store)
    same = replace(spec_of(config, lightning__max_epochs=1), dataset_key=store.key)
    assert run(config, same, tmp_path / "same")[0].status == "finished"
    events = []
    with pytest.raises(DataError, match=r"images or labels have changed since the run began"):
        fit(config, replace(same, dataset_key="0" * 32), tmp_path / "t", events.append)
    assert not events
