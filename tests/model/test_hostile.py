"""Model files that somebody made to harm: each is refused, quickly, by its name."""

from __future__ import annotations

import contextlib
import json
import pickle
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from hsf_tune.errors import ModelError
from hsf_tune.model.arunet import Architecture
from hsf_tune.model.onnx_weights import load_onnx
from hsf_tune.model.weights import load_base, save

SLOWEST_S = 10.0
FLAT = Architecture(f_maps=4, num_levels=2)
FIRST = "encoders.0.basic_module.conv1.conv.weight"


@pytest.fixture
def weights(draw_network) -> dict[Any, Any]:
    """The state dict of a small sound network."""
    return dict(draw_network(FLAT).state_dict())


def _refused(path: Path, words: str = ".") -> None:
    start = time.perf_counter()
    with pytest.raises(ModelError, match=words) as caught:
        load_base(path)
    assert path.name in str(caught.value)
    assert time.perf_counter() - start < SLOWEST_S


def _seventy_levels(weights):
    return weights | {f"encoders.{i}.x": torch.zeros(1) for i in range(70)}


def _huge_first(weights):
    """Shapes of 4 TB, on the four bytes that one number takes."""
    return weights | {FIRST: torch.zeros(1).expand(1 << 20, 1 << 20, 1, 1, 1)}


ODD = {
    "a number for a name": lambda w: w | {7: torch.zeros(1)},
    "a tuple for a name": lambda w: w | {("a", 1): torch.zeros(1)},
    "no number of a level": lambda w: w | {"encoders.x.y": torch.zeros(1)},
    "a name that ends early": lambda w: w | {"encoders.": torch.zeros(1), "encoders": torch.zeros(1)},
    "seventy levels": _seventy_levels,
    "a level that is missing": lambda w: {k: v for k, v in w.items() if "encoders.1" not in k},
    "stride 0": _huge_first,
    "an expanded weight beside": lambda w: w | {"more": torch.zeros(1).expand(1 << 40)},
    "no dimensions": lambda w: w | {FIRST: torch.zeros(())},
    "complex numbers": lambda w: w | {FIRST: w[FIRST].to(torch.complex64)},
    "a half-empty name": lambda w: {f"x.{k}" if "1" in k else k: v for k, v in w.items()},
    "sparse": lambda w: w | {FIRST: w[FIRST].to_sparse()},
    "a thousand classes": lambda w: w | {"final_conv.weight": torch.zeros(1000, 4, 1, 1, 1)},
    "escape codes": lambda w: {f"\x1b[2J{k}": v for k, v in w.items() if "final" not in k}
    | {"final_conv.weight": torch.zeros(2)},
    "a list of weights": lambda w: list(w.values()),
    "nothing": lambda w: {},
    "no state dict": lambda w: {"state_dict": 3},
}  # fmt: skip


@pytest.mark.parametrize("change", ODD.values(), ids=ODD.keys())
def test_a_checkpoint_of_odd_content_is_refused(change, weights, tmp_path):
    """No traceback, no allocation of what it claims, no code for a terminal."""
    torch.save(change(weights), tmp_path / "odd.ckpt")
    with pytest.raises(ModelError) as caught:
        load_base(tmp_path / "odd.ckpt")
    assert "\x1b" not in str(caught.value)
    _refused(tmp_path / "odd.ckpt")


def _zipped(path: Path, content: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in content.items():
            archive.writestr(f"archive/{name}", data)


def _tuples(depth: int) -> bytes:
    """A dictionary whose key is a tuple of twice a tuple of twice ...: hashing it never ends."""
    code = b"\x80\x02}" + b"K\x01K\x01\x86q\x00"
    for i in range(depth):
        code += b"h" + bytes([i]) + b"\x86q" + bytes([i + 1])
    return code + b"K\x01s."


@pytest.mark.parametrize("kind", ["zip", "plain"])
def test_a_key_that_takes_for_ever_to_hash_is_refused(kind, tmp_path):
    """A few hundred bytes that stand for 2 to the power of 60."""
    path = tmp_path / "tuples.ckpt"
    if kind == "zip":
        _zipped(path, {"data.pkl": _tuples(60), "version": b"3\n", "byteorder": b"little"})
    else:
        path.write_bytes(_tuples(60))
    _refused(path, "stands for more than")


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(tmp_path):
    """torch.save does not compress; a small file may not take a minute to look through."""
    path = tmp_path / "bomb.ckpt"
    content = {"data.pkl": pickle.dumps({}, 2), "data/0": bytes(20_000_000)}
    _zipped(path, content, zipfile.ZIP_DEFLATED)
    _refused(path, "compressed")


def test_entries_of_an_archive_that_lie_on_one_another_are_refused(tmp_path):
    """A thousand names for the same bytes."""
    path = tmp_path / "overlap.ckpt"
    _zipped(path, {"data.pkl": pickle.dumps({}, 2), "data/0": bytes(60_000)})
    with zipfile.ZipFile(path, "a") as archive:
        known = archive.getinfo("archive/data/0")
        for i in range(1, 2000):
            again = zipfile.ZipInfo(f"archive/data/{i}")
            for name in ("header_offset", "CRC", "compress_size", "file_size", "compress_type"):
                setattr(again, name, getattr(known, name))
            archive.filelist.append(again)
        archive._didModify = True
    _refused(path)


NOTES = {
    "nested": "[" * 100_000,
    "no numbers": json.dumps({"a": "DG", "b": "CA"}),
    "a list": "[1, 2]",
    "nested names": json.dumps({str(i): {"x": [[]]} for i in range(1, 6)}),
}


@pytest.mark.parametrize("key", ["labels_names", "training"])
@pytest.mark.parametrize("note", NOTES.values(), ids=NOTES.keys())
def test_notes_that_make_no_sense_are_passed_over(key, note, weights, tmp_path):
    """The weights are sound; what the file says of itself is not needed."""
    save(tmp_path / "a.safetensors", weights, {key: note})
    base = load_base(tmp_path / "a.safetensors")
    assert base.architecture == FLAT


def test_what_a_file_says_of_itself_can_be_printed(weights, tmp_path):
    """Names of the model and of its labels steer no terminal and fill no screen."""
    labels = {i: f"\x1b[2J{i}" for i in range(1, 6)}
    notes = {"name": "\x1b[2Ja\nb" + "x" * 10_000, "labels_names": labels}
    save(tmp_path / "a.safetensors", weights, notes)
    base = load_base(tmp_path / "a.safetensors")
    assert base.name.startswith(r"\x1b[2Ja b")
    assert len(base.name) < 200
    assert base.labels_names[1] == r"\x1b[2J1"


# ONNX


def _model(*tensors: TensorProto, nodes: tuple[Any, ...] = (), **keys: Any) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes),
        "g",
        [value("mri", TensorProto.FLOAT, [1, 1, 8, 8, 8])],
        [value("out", TensorProto.FLOAT, [1, 6, 8, 8, 8])],
        list(tensors),
        **keys,
    )
    return helper.make_model(graph)


def _outside(path: Path, name: str = "_model.final_conv.weight") -> TensorProto:
    """A tensor whose numbers are the bytes of another file."""
    tensor = TensorProto(name=name, dims=[path.stat().st_size], data_type=TensorProto.UINT8)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=path.name)
    return tensor


def _constant(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["_model.final_conv.weight"], value=tensor)


def _inner(tensor: TensorProto) -> onnx.NodeProto:
    graph = helper.make_graph([_constant(tensor)], "inner", [], [])
    return helper.make_node("If", ["c"], ["o"], then_branch=graph, else_branch=graph)


PLACES: dict[str, Callable[[TensorProto], onnx.ModelProto]] = {
    "an initializer": lambda t: _model(t),
    "a Constant": lambda t: _model(nodes=(_constant(t),)),
    "a Constant in a branch": lambda t: _model(nodes=(_inner(t),)),
}


@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES.keys())
def test_no_other_file_is_read_into_the_weights(make, tmp_path, monkeypatch):
    """Not of the working directory, nor of the model's own folder."""
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "secret.txt"
    secret.write_text("the password" * 10)
    onnx.save(make(_outside(secret)), "evil.onnx")
    opened = []
    monkeypatch.setattr(onnx.external_data_helper, "load_external_data_for_tensor", opened.append)
    for reader in (load_base, load_onnx):
        with pytest.raises(ModelError, match=r"evil\.onnx keeps its weights in a second file"):
            reader(tmp_path / "evil.onnx")
    assert opened == []


def _tensor(values: Any = 1.0, name: str = "_model.final_conv.weight") -> TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


def _of_type(data_type: int, dims: tuple[int, ...] = (1,)) -> TensorProto:
    tensor = TensorProto(name="_model.final_conv.weight", dims=dims, data_type=data_type)
    tensor.raw_data = b"\0" * 64
    return tensor


BAD_ONNX = {
    "an unknown type": lambda: _model(_of_type(999)),
    "no type": lambda: _model(_of_type(0)),
    "texts": lambda: _model(_tensor(np.array(["a", "b"], dtype=object))),
    "four bits a number": lambda: _model(_of_type(TensorProto.INT4, (128,))),
    "eight-bit floats": lambda: _model(_of_type(TensorProto.FLOAT8E4M3FN, (64,))),
    "complex numbers": lambda: _model(_tensor(np.ones((2, 4, 1, 1, 1), np.complex64))),
    "negative dimensions": lambda: _model(_of_type(1, (-4, 4))),
    "dimensions beyond all": lambda: _model(_of_type(1, (1 << 40, 1 << 40))),
    "an Identity of nothing": lambda: _model(nodes=(helper.make_node("Identity", [], []),)),
    "a Constant of nothing": lambda: _model(nodes=(helper.make_node("Constant", [], []),)),
    "no graph": onnx.ModelProto,
    "no weights": _model,
}  # fmt: skip


@pytest.mark.parametrize("make", BAD_ONNX.values(), ids=BAD_ONNX.keys())
def test_an_onnx_file_of_odd_content_is_refused(make, tmp_path):
    """Types and shapes that no exporter writes."""
    (tmp_path / "odd.onnx").write_bytes(make().SerializeToString())
    _refused(tmp_path / "odd.onnx")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("suffix", ["ckpt", "safetensors", "onnx", "pt"])
def test_damage_anywhere_ends_in_an_error_of_ours(suffix, seed, weights, tmp_path):
    """Bits turned round at random: a sentence, or a network, but no traceback."""
    path = tmp_path / f"base.{suffix}"
    if suffix == "ckpt":
        torch.save(OrderedDict(weights), path)
    elif suffix == "pt":
        torch.save(weights, path, _use_new_zipfile_serialization=False)
    elif suffix == "safetensors":
        save(path, weights, {"labels_names": {1: "DG"}})
    else:
        tensors = [_tensor(v.numpy(), f"_model.{k}") for k, v in weights.items()]
        path.write_bytes(_model(*tensors).SerializeToString())
    sound, random = path.read_bytes(), np.random.default_rng(seed)
    start = time.perf_counter()
    for _ in range(25):
        content = bytearray(sound)
        for place in random.integers(0, min(len(content), 3000), 3):
            content[place] ^= 1 << int(random.integers(8))
        path.write_bytes(content)
        with contextlib.suppress(ModelError):
            load_base(path)
    assert time.perf_counter() - start < 60
