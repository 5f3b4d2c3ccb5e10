import collections
import errno
import json
import stat

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from hsf_tune.errors import ModelError
from hsf_tune.model.arunet import Architecture
from hsf_tune.model.networks import infer_architecture
from hsf_tune.model.weights import BaseModel, build_network, load_base, save

SMALL = Architecture(f_maps=4)


@pytest.fixture
def network(draw_network):
    return draw_network(SMALL)


@pytest.fixture
def lightning_checkpoint(network, tmp_path):
    """As Lightning writes one, with optimiser, loops and callbacks beside the weights."""
    path = tmp_path / "hsf.ckpt"
    weights = {f"_model.{key}": value for key, value in network.state_dict().items()}
    torch.save(
        {
            "epoch": 0,
            "global_step": 5,
            "pytorch-lightning_version": "2.6.6",
            "state_dict": collections.OrderedDict(weights),
            "loops": {"fit_loop": {"state_dict": {}}},
            "callbacks": {"ModelCheckpoint{'mode': 'min'}": {"best": torch.tensor(0.5)}},
            "optimizer_states": [{"state": {0: {"step": 5, "exp_avg": torch.zeros(3)}}}],
            "lr_schedulers": [{"base_lrs": [0.01], "last_epoch": 5}],
        },
        path,
    )
    return path


def assert_same_weights(base: BaseModel, network):
    expected = network.state_dict()
    assert set(base.state_dict) == set(expected)
    for name, value in base.state_dict.items():
        torch.testing.assert_close(value, expected[name], msg=name, atol=0, rtol=0)


def test_lightning_checkpoint_is_read(lightning_checkpoint, network):
    """Names lose their prefix, the architecture comes from the shapes."""
    base = load_base(lightning_checkpoint)
    assert_same_weights(base, network)
    assert base.architecture == SMALL
    assert (base.name, base.source) == ("hsf", str(lightning_checkpoint))
    assert base.labels_names is None


@pytest.mark.parametrize("prefix", ["", "_model.", "network._model."])
@pytest.mark.parametrize("kind", ["pt", "old pt", "safetensors"])
def test_plain_state_dicts_are_read(kind, prefix, network, tmp_path):
    """With any prefix, in each of the ways that PyTorch's users save weights."""
    weights = {prefix + key: value.clone() for key, value in network.state_dict().items()}
    path = tmp_path / "weights.bin"
    if kind == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "pt")
    assert_same_weights(load_base(path), network)


def test_half_precision_checkpoint_becomes_float32(network, tmp_path):
    """HSF was trained in bfloat16; what is finetuned is float32."""
    torch.save({k: v.bfloat16() for k, v in network.state_dict().items()}, tmp_path / "half.ckpt")
    base = load_base(tmp_path / "half.ckpt")
    assert {value.dtype for value in base.state_dict.values()} == {torch.float32}


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(f_maps=4),
        Architecture(f_maps=6, out_channels=8, use_attention=False),
        Architecture(f_maps=2, num_levels=3, in_channels=2),
    ],
    ids=str,
)
def test_architecture_is_inferred_from_shapes(architecture, draw_network):
    """Width, levels, channels and attention all show in the weights."""
    assert infer_architecture(draw_network(architecture).state_dict()) == architecture


def test_built_network_has_the_bases_weights_and_leaves_the_base_alone(network, tmp_path):
    """Training a network that was built from a base does not change the base."""
    save(tmp_path / "base.safetensors", network)
    base = load_base(tmp_path / "base.safetensors")
    built = build_network(base, 6)
    assert built.training
    assert all(p.requires_grad and p.is_leaf for p in built.parameters())
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(1)
    assert_same_weights(base, network)


@pytest.mark.parametrize("out_channels", [2, 8])
def test_another_number_of_channels_replaces_the_final_convolution_only(
    out_channels, network, tmp_path
):
    """At this width, with values that depend on the seed alone."""
    save(tmp_path / "base.safetensors", network)
    base = load_base(tmp_path / "base.safetensors")
    torch.manual_seed(1)
    built = build_network(base, out_channels, seed=7)
    torch.manual_seed(2)
    again, other = (build_network(base, out_channels, seed=seed) for seed in (7, 8))
    assert built.final_conv.weight.shape == (out_channels, 4, 1, 1, 1)
    assert built.final_conv.weight.abs().max() <= 0.5  # 1 / sqrt(fan in), as PyTorch draws
    for (name, value), second in zip(
        built.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(value, second)
        if not name.startswith("final_conv"):
            assert torch.equal(value, base.state_dict[name])
    assert not torch.equal(built.final_conv.weight, other.final_conv.weight)
    assert built(torch.zeros(1, 1, 8, 8, 16)).shape == (1, out_channels, 8, 8, 16)


def test_building_draws_nothing_from_the_global_generator(network, tmp_path):
    """The seed of a trial governs its data whether or not a layer was replaced."""
    save(tmp_path / "base.safetensors", network)
    base = load_base(tmp_path / "base.safetensors")
    state = torch.get_rng_state()
    build_network(base, 8)
    assert torch.equal(torch.get_rng_state(), state)


def test_saved_notes_come_back(network, tmp_path):
    """Labels and training notes travel in the file, whether given as text or not."""
    labels = {1: "DG", 2: "CA1", 3: "CA2", 4: "CA3", 5: "SUB"}
    for value in (labels, json.dumps({str(k): v for k, v in labels.items()})):
        notes = {"name": "demo", "labels_names": value, "training": {"epochs": 3}}
        save(tmp_path / "a" / "base.safetensors", network, notes)
        base = load_base(tmp_path / "a" / "base.safetensors")
        assert base.labels_names == labels
        assert (base.name, base.training) == ("demo", {"epochs": 3})
    save(tmp_path / "base.safetensors", network, {"labels_names": {1: "DG"}})
    assert load_base(tmp_path / "base.safetensors").labels_names is None  # one name, 5 channels


def test_saving_is_all_or_nothing(network, tmp_path, monkeypatch):
    """A write that fails leaves the old file whole and no rubbish beside it."""
    path = tmp_path / "base.safetensors"
    save(path, network)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("hsf_tune.model.weights.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save(path, network)
    assert [p.name for p in tmp_path.iterdir()] == ["base.safetensors"]
    assert path.read_bytes() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_full_disk_is_an_error_of_the_system(network, tmp_path, monkeypatch):
    """safetensors says so in an error of its own, which nobody would take for a full disk."""

    def fail(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("hsf_tune.model.weights.save_file", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        save(tmp_path / "base.safetensors", network)
    assert caught.value.errno == errno.ENOSPC


def test_channels_last_weights_are_saved(network, tmp_path):
    """Memory layout is no part of a file."""
    save(tmp_path / "base.safetensors", network.to(memory_format=torch.channels_last_3d))
    assert_same_weights(load_base(tmp_path / "base.safetensors"), network)


def change(weights, how):
    middle = "encoders.1.basic_module.conv2.conv.weight"
    if how == "missing":
        del weights[middle]
        return f"{middle} is missing"
    if how == "unexpected":
        weights["encoders.1.basic_module.conv9.weight"] = torch.zeros(2)
        return "conv9.weight is unexpected"
    if how == "wider":
        weights[middle] = torch.zeros(16, 16, 3, 3, 3)
        return f"{middle} is 16x16x3x3x3, expected 8x8x3x3x3"
    if how == "NaN":
        weights[middle][0] = float("nan")
        return "1 tensors hold NaN.*conv2.conv.weight"
    if how == "no tensor":
        weights[middle] = "text"
        return "is a str, expected a tensor"
    weights.clear()
    weights["fc.weight"] = torch.zeros(2)
    return "no ARUNet.*fc.weight"


@pytest.mark.parametrize(
    "how", ["missing", "unexpected", "wider", "NaN", "no tensor", "another network"]
)
def test_weights_that_differ_are_refused_with_what_differs(how, network, tmp_path):
    """Each difference is named, with the shape found and the one expected."""
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    expected = change(weights, how)
    torch.save(weights, tmp_path / "changed.ckpt")
    with pytest.raises(ModelError, match=expected):
        load_base(tmp_path / "changed.ckpt")


def test_checksum_of_a_local_file_is_verified(lightning_checkpoint):
    """The right one passes in either algorithm, a wrong one names both."""
    import hashlib

    import xxhash

    content = lightning_checkpoint.read_bytes()
    sha256, xxh3 = hashlib.sha256(content).hexdigest(), xxhash.xxh3_64(content).hexdigest()
    for right in (sha256, f"sha256:{sha256.upper()}", xxh3, f"xxh3_64:{xxh3}"):
        assert load_base(lightning_checkpoint, checksum=right).sha256 == sha256
    with pytest.raises(ModelError, match=f"{xxh3}, expected xxh3_64:{'0' * 16}"):
        load_base(lightning_checkpoint, checksum="0" * 16)
    with pytest.raises(ModelError, match=r"models\.checksum is 'abc'"):
        load_base(lightning_checkpoint, checksum="abc")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("nowhere/base.ckpt", "does not exist"),
        (".", "is a folder"),
        ("bag_5", "Did you mean 'bag_"),
        ("http://localhost/base.ckpt", "needs a checksum"),
        ("https://localhost/base.ckpt", r"give models\.checksum"),
    ],
)
def test_source_that_cannot_be_used_says_what_could(source, expected):
    """Nothing is fetched without a checksum, and names are suggested."""
    with pytest.raises(ModelError, match=expected):
        load_base(source)
