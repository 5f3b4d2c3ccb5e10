from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from hsf_tune.config import Config, StoreConfig
from hsf_tune.data.cases import find_cases
from hsf_tune.data.module import CropsDataModule, collate
from hsf_tune.data.splits import Split
from hsf_tune.data.store import open_store

TRAIN = tuple(f"study/sub-{i}" for i in range(5))
SPLIT = Split("explore", 1, TRAIN, ("study/sub-5",))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Six subjects of two sizes in a store."""
    import nibabel as nib

    from hsf_tune.config import config_from_dict

    root = tmp_path_factory.mktemp("module")
    random = np.random.default_rng(0)
    for i in range(6):
        size = (8, 12, 9) if i % 2 else (8, 20, 8)
        folder = root / "study" / f"sub-{i}"
        folder.mkdir(parents=True)
        for name, data in (
            ("t2", random.normal(500, 80, size).astype(np.float32)),
            ("seg", random.integers(0, 3, size).astype(np.uint8)),
        ):
            nib.save(nib.Nifti1Image(data, np.eye(4)), folder / f"{name}.nii.gz")
    dataset = {
        "path": "study",
        "ca_type": "1/2/3",
        "patterns": {"t2": {"mri": "**/t2.nii.gz", "label": "seg.nii.gz"}},
        "labels": {1: 1, 2: 2},
        "labels_names": {1: "DG", 2: "CA1"},
    }
    config = config_from_dict(
        {"datasets": {"main_path": str(root), "datasets": {"study": dataset}}}
    )
    cases = find_cases(config.datasets)
    store = open_store(cases, config.datasets, StoreConfig(path=str(root / "cache")))
    return store, cases, config


def make(built, split=SPLIT, seed=1, workers=0, batch_size=1):
    store, cases, config = built
    datasets = dataclasses.replace(config.datasets, batch_size=batch_size)
    config = dataclasses.replace(config, datasets=datasets)
    return CropsDataModule(store, cases, split, config, seed, workers=workers)


def epoch_of(data, epoch):
    """{case: (image, labels)} of one epoch, and the order."""
    data.set_epoch(epoch)
    batches = list(data.train_dataloader())
    order = [batch["case"][0] for batch in batches]
    return order, {b["case"][0]: (b["image"], b["labels"]) for b in batches}


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_an_epoch_is_a_pure_function_of_seed_epoch_and_case(built):
    """Whatever was drawn before, in however many processes, in whose company."""
    torch.manual_seed(5)
    order, items = epoch_of(make(built), 3)
    torch.manual_seed(6)
    data = make(built)
    epoch_of(data, 0)
    again, items_again = epoch_of(data, 3)
    assert again == order
    assert all(same(items[id], items_again[id]) for id in order)
    order_workers, items_workers = epoch_of(make(built, workers=2), 3)
    assert order_workers == order
    assert all(same(items[id], items_workers[id]) for id in order)
    fewer = Split("explore", 2, TRAIN[2:4], ("study/sub-0",))
    _, items_fewer = epoch_of(make(built, fewer), 3)
    assert all(same(items[id], items_fewer[id]) for id in items_fewer)


def test_epochs_and_seeds_differ_in_order_and_augmentation(built):
    epochs = [epoch_of(make(built), epoch) for epoch in range(6)]
    epochs += [epoch_of(make(built, seed=2), epoch) for epoch in range(6)]
    assert len({tuple(order) for order, _ in epochs}) > 6
    one = epochs[0][0][0]
    versions = [items[one][0] for _, items in epochs]
    assert sum(not torch.equal(versions[0], v) for v in versions[1:]) >= 6


def test_loading_leaves_the_global_random_state_alone(built):
    data = make(built)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    list(data.train_dataloader())
    list(data.val_dataloader())
    assert torch.equal(torch.get_rng_state(), state)


def test_padding_stays_zero_and_background_after_augmentation(built):
    """As at inference, where the crop is normalised and then padded."""
    store = built[0]
    for epoch in range(5):
        for id, (image, labels) in epoch_of(make(built), epoch)[1].items():
            padding = torch.ones(labels.shape[1:], dtype=torch.bool)
            padding[store.load(id).crop] = False
            assert not image[0, 0][padding].any()
            assert not labels[0][padding].any()


def test_a_larger_batch_pads_to_its_largest_case_and_marks_the_padding(built):
    data = make(built, batch_size=5)
    assert len(data.train_dataloader()) == 1
    (batch,) = data.train_dataloader()
    assert batch["image"].shape == (5, 1, 8, 24, 16)
    assert batch["labels"].shape == batch["counts"].shape == (5, 8, 24, 16)
    assert (batch["image"].dtype, batch["labels"].dtype) == (torch.float32, torch.uint8)
    assert batch["dataset"] == ["study"] * 5
    _, single = epoch_of(make(built), 0)
    for i, id in enumerate(batch["case"]):
        image, labels = single[id]
        x, y, z = labels.shape[1:]
        assert torch.equal(batch["image"][i : i + 1, :, :x, :y, :z], image)
        assert torch.equal(batch["labels"][i : i + 1, :x, :y, :z], labels)
        inside = torch.zeros(8, 24, 16, dtype=torch.bool)
        inside[:x, :y, :z] = True
        assert torch.equal(batch["counts"][i], inside)
        assert not batch["image"][i, 0][~inside].any()


@pytest.mark.parametrize(("batch_size", "batches"), [(1, 5), (2, 3), (5, 1), (9, 1)])
def test_batches_per_epoch_counts_the_remainder(built, batch_size, batches):
    data = make(built, batch_size=batch_size)
    assert len(data.train_dataloader()) == batches == len(list(data.train_dataloader()))


def test_a_longer_epoch_goes_round_again_with_new_order_and_augmentation(built):
    """13 crops of 5 cases: two rounds and three of the third, the first as in a plain epoch."""
    data = make(built)
    data.crops_per_epoch = 13
    data.set_epoch(2)
    batches = list(data.train_dataloader())
    cases = [batch["case"][0] for batch in batches]
    plain, _ = epoch_of(make(built), 2)
    assert cases[:5] == plain
    assert sorted(cases[:5]) == sorted(cases[5:10])
    assert len(set(cases[10:])) == 3
    assert cases[:5] != cases[5:10]
    versions = {case: [b["image"] for b in batches if b["case"][0] == case] for case in plain}
    assert sum(not torch.equal(v[0], v[1]) for v in versions.values()) >= 3


def test_validation_shows_the_stored_cases_one_by_one(built):
    store, cases, _ = built
    (batch,) = make(built, batch_size=3).val_dataloader()
    stored = store.load(cases[5].id)
    np.testing.assert_array_equal(batch["image"][0], stored.image)
    np.testing.assert_array_equal(batch["labels"][0], stored.labels)
    assert batch["counts"].all()
    assert batch["case"] == [cases[5].id]


def test_a_case_drawn_twice_by_a_bootstrap_is_augmented_twice(built):
    split = Split("finetune", 1, ("study/sub-0", "study/sub-0"), ("study/sub-5",))
    data = make(built, split)
    pairs = []
    for epoch in range(5):
        data.set_epoch(epoch)
        pairs.append([batch["image"] for batch in data.train_dataloader()])
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_collate_keeps_a_single_case_as_it_is():
    item = {
        "image": torch.randn(1, 8, 8, 8),
        "labels": torch.ones(8, 8, 8, dtype=torch.uint8),
        "case": "a",
        "dataset": "b",
    }
    batch = collate([item])
    assert torch.equal(batch["image"][0], item["image"])
    assert batch["counts"].all()


class Recorder(pl.LightningModule):
    """Learns nothing, and remembers what each epoch showed it."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {}

    def training_step(self, batch, _):
        entry = (batch["case"][0], float(batch["image"].abs().sum()))
        self.seen.setdefault(self.current_epoch, []).append(entry)
        return self.weight * 1.0

    def validation_step(self, batch, _):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trained(built, tmp_path, epochs, workers, resume=None):
    module = Recorder()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        default_root_dir=tmp_path,
        callbacks=[
            pl.callbacks.ModelCheckpoint(tmp_path, "e{epoch}", save_on_train_epoch_end=True)
        ],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=make(built, workers=workers), ckpt_path=resume)
    return module.seen, trainer.checkpoint_callback.best_model_path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_sees_the_epochs_that_the_uninterrupted_one_saw(built, tmp_path, workers):
    """Under Lightning, from its own checkpoint, also where workers fetch ahead."""
    whole, _ = trained(built, tmp_path / "whole", 4, workers)
    assert list(whole) == [0, 1, 2, 3]
    assert len({tuple(epoch) for epoch in whole.values()}) == 4
    _, checkpoint = trained(built, tmp_path / "half", 2, workers)
    rest, _ = trained(built, tmp_path / "rest", 4, workers, checkpoint)
    assert rest == {epoch: whole[epoch] for epoch in (2, 3)}


def test_on_a_cpu_no_worker_processes_compete_with_the_training(built):
    store, cases, config = built
    assert isinstance(config, Config)
    many = dataclasses.replace(
        config,
        datasets=dataclasses.replace(config.datasets, num_workers=16),
        lightning=dataclasses.replace(config.lightning, accelerator="cpu"),
    )
    assert CropsDataModule(store, cases, SPLIT, many, 0).workers == 0
