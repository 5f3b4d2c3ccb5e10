import os
import pickle
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from hsf_tune.errors import ModelError
from hsf_tune.model.arunet import Architecture, ARUNet
from hsf_tune.model.formats import imports_of, read_weights
from hsf_tune.model.weights import build_network, load_base, save

SMALL = Architecture(f_maps=4)
FLAT = Architecture(f_maps=4, num_levels=2)  # quick to export


class TouchesAFile:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mknod, (self.path,)


@pytest.mark.parametrize("how", ["pickle", "torch", "old torch", "protocol 0", "in a checkpoint"])
def test_malicious_pickle_is_refused_and_runs_nothing(how, tmp_path, draw_network):
    """The error names what it wanted to import; the trap does not spring."""
    trap, path = tmp_path / "sprung", tmp_path / "evil.ckpt"
    evil = {"state_dict": draw_network(SMALL).state_dict(), "callbacks": TouchesAFile(trap)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(TouchesAFile(trap)))
    elif how == "protocol 0":
        path.write_bytes(b"\x80\x02" + pickle.dumps(TouchesAFile(trap), protocol=0))
    elif how == "in a checkpoint":
        torch.save(evil, path, pickle_protocol=4)
    else:
        torch.save(TouchesAFile(trap), path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(ModelError, match=r"wants to import posix\.mknod.*not opened"):
        read_weights(path)
    assert not trap.exists()


def test_import_by_a_memoised_name_is_not_overlooked(tmp_path):
    """A pickle may fetch a module's name from its memo; then torch's own reader refuses it."""
    trap, path = tmp_path / "sprung", tmp_path / "evil.ckpt"
    # 'posix' is put into the memo, popped, fetched again after another word, and imported from
    code = b"\x80\x04\x8c\x05posix\x94\x30\x8c\x0bOrderedDict\x30h\x00\x8c\x05mknod\x93"
    name = str(trap).encode()
    path.write_bytes(code + b"\x8c" + bytes([len(name)]) + name + b"\x85R.")
    with pytest.raises(ModelError):
        read_weights(path)
    assert not trap.exists()


def test_imports_of_an_honest_checkpoint_are_tensors_and_containers(tmp_path, draw_network):
    """What is allowed is what torch.save writes for tensors."""
    torch.save({"state_dict": draw_network(SMALL).state_dict()}, tmp_path / "a.ckpt")
    found = imports_of(tmp_path / "a.ckpt")
    assert ("torch._utils", "_rebuild_tensor_v2") in found
    assert {module.split(".")[0] for module, _ in found} <= {"torch", "collections"}


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors", "onnx"])
@pytest.mark.parametrize("damage", ["cut short", "one byte changed"])
def test_damaged_file_is_refused(suffix, damage, tmp_path, draw_network):
    """Truncated or tampered, whatever the format, the file is named."""
    path, network = tmp_path / f"base.{suffix}", draw_network(FLAT)
    write = {"ckpt": lambda: torch.save(network.state_dict(), path)}
    write |= {"safetensors": lambda: save(path, network), "onnx": lambda: export(network, path)}
    write[suffix]()
    content = bytearray(path.read_bytes())
    if damage == "cut short":
        content = content[: len(content) * 2 // 3]
    elif suffix == "ckpt":
        content[len(content) // 2] ^= 0xFF  # a weight: the archive's own checksum tells
    else:
        content[20] ^= 0xFF  # the header
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"base.{suffix}"):
        load_base(path)


@pytest.mark.parametrize("content", [b"", b"hello, I am a text file", b"\x89PNG\r\n\x1a\n"])
def test_file_of_another_kind_is_refused(content, tmp_path):
    """Its name alone makes no base model."""
    (tmp_path / "base.ckpt").write_bytes(content)
    with pytest.raises(ModelError, match="is no base model"):
        load_base(tmp_path / "base.ckpt")


# ONNX


class Lightning(nn.Module):
    """A module that keeps its network under `_model`, and softmax inside, as HSF's exports."""

    def __init__(self, network):
        super().__init__()
        self._model = network

    def forward(self, x):
        return self._model.probabilities(x)


def export(network, path, folding=True):
    axes = {0: "batch", 2: "x", 3: "y", 4: "z"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Lightning(network).eval(),
            torch.zeros(1, 1, 16, 16, 16),
            str(path),
            input_names=["mri"],
            output_names=["labels"],
            dynamic_axes={"mri": axes, "labels": axes},
            opset_version=17,
            dynamo=False,
            do_constant_folding=folding,
        )


class TextbookNorm(nn.Module):
    """Switchable normalisation as HSF's published files were exported from: in plain steps."""

    def __init__(self, norm):
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        self.mean_weight, self.var_weight = norm.mean_weight, norm.var_weight

    def forward(self, x):
        b, c, *space = x.shape
        flat = x.reshape(b, c, -1)
        mean, var = flat.mean(-1, keepdim=True), flat.var(-1, keepdim=True)
        layer_mean = mean.mean(1, keepdim=True)
        layer_var = (var + mean**2).mean(1, keepdim=True) - layer_mean**2
        m, v = self.mean_weight.softmax(0), self.var_weight.softmax(0)
        flat = (flat - (m[0] * mean + m[1] * layer_mean)) / (
            v[0] * var + v[1] * layer_var + 1e-5
        ).sqrt()
        return flat.reshape(b, c, *space) * self.weight + self.bias


def with_textbook_norms(module):
    for name, child in list(module.named_children()):
        if type(child).__name__ == "SwitchNorm3d":
            setattr(module, name, TextbookNorm(child))
        else:
            with_textbook_norms(child)
    return module


@pytest.mark.parametrize("folding", [True, False], ids=["folded constants", "plain"])
@pytest.mark.parametrize("norms", ["ours", "textbook"])
def test_weights_come_back_out_of_onnx(norms, folding, tmp_path, draw_network):
    """By initialiser name, and where the exporter folded the mixing weights, by their use."""
    network, exported = draw_network(FLAT), draw_network(FLAT)
    if norms == "textbook":
        exported = with_textbook_norms(exported)
    export(exported, tmp_path / "arunet.onnx", folding)
    base = load_base(tmp_path / "arunet.onnx")
    assert base.architecture == FLAT
    for name, value in network.state_dict().items():
        found = base.state_dict[name]
        if name.endswith(("mean_weight", "var_weight")):
            value, found = value.softmax(0), found.softmax(0)
        torch.testing.assert_close(found, value, atol=1e-7, rtol=1e-6, msg=name)


def test_equal_weights_that_the_exporter_merged_come_back(tmp_path):
    """A fresh network has many equal weights, which ONNX holds once."""
    network = ARUNet(SMALL)
    export(network, tmp_path / "fresh.onnx")
    names = {tensor.name for tensor in onnx.load(str(tmp_path / "fresh.onnx")).graph.initializer}
    assert "_model.encoders.0.basic_module.conv3.SwitchNorm3d.weight" not in names
    rebuilt = build_network(load_base(tmp_path / "fresh.onnx"), 6)
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(image), network(image), atol=1e-5, rtol=1e-5)


def test_network_exports_to_onnx_with_dynamic_axes(tmp_path, draw_network, draw_image):
    """onnxruntime gives the same probabilities for other sizes and batches, to 1e-4."""
    network = draw_network(SMALL).eval()
    export(network, tmp_path / "arunet.onnx")
    assert load_base(tmp_path / "arunet.onnx").architecture == SMALL
    session = onnxruntime.InferenceSession(str(tmp_path / "arunet.onnx"))
    for shape in ((16, 16, 16), (24, 40, 32), (8, 16, 48)):
        image = torch.cat((draw_image(shape, 1), draw_image(shape, 2)))
        (found,) = session.run(None, {"mri": image.numpy()})
        with torch.no_grad():
            expected = network.probabilities(image).numpy()
        assert np.abs(found - expected).max() < 1e-4


def test_onnx_with_weights_in_a_second_file_is_refused(tmp_path, draw_network):
    """HSF and a download need one self-contained file."""
    export(draw_network(FLAT), tmp_path / "a.onnx")
    model = onnx.load(str(tmp_path / "a.onnx"))
    onnx.save(model, str(tmp_path / "b.onnx"), save_as_external_data=True, size_threshold=0)
    with pytest.raises(ModelError, match="second file"):
        load_base(tmp_path / "b.onnx")
