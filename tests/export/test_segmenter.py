"""ONNX files that nobody vouches for, opened to segment: a sentence, no traceback."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hsf_tune.errors import ModelError
from hsf_tune.export.segmenter import open_segmenter

IMAGE = np.zeros((1, 1, 8, 8, 8), np.float32)
SIDES = ["b", 1, "x", "y", "z"]


def write(path, metadata=None, sides=SIDES, channels=6, kernel=1, outputs=1, weight=None):
    """A network of one convolution, free in its sides, saying `metadata` of itself."""
    value = helper.make_tensor_value_info
    numbers = np.ones((channels, 1, *[kernel] * (len(sides) - 2)), np.float32)
    answer = ["b", channels, *sides[2:]] if isinstance(channels, int) else channels
    graph = helper.make_graph(
        [helper.make_node("Conv", ["mri", "w"], ["out"])],
        "g",
        [value("mri", TensorProto.FLOAT, sides)],
        [value("out", TensorProto.FLOAT, answer)] * outputs,
        [weight or numpy_helper.from_array(numbers, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    path.write_bytes(model.SerializeToString())
    return path


def test_a_file_without_metadata_segments(tmp_path):
    """The sound one that the others below are made from."""
    segmenter = open_segmenter(str(write(tmp_path / "a.onnx")))
    assert segmenter.predictors[0](IMAGE).shape == (1, 6, 8, 8, 8)
    assert segmenter.labels.channels[5] == "label 5"


NAMES = {str(i): f"L{i}" for i in range(1, 6)}
METADATA = {
    "no JSON": {"labels_names": "{"},
    "nested": {"labels_names": "[" * 100_000},
    "a list": {"labels_names": "[1]"},
    "words for numbers": {"labels_names": '{"a": "b"}'},
    "names of other channels": {"labels_names": '{"1": "DG"}'},
    "an unknown mode": {"labels_names": json.dumps(NAMES), "ca_mode": "4/5"},
    "not true or false": {"labels_names": json.dumps(NAMES), "hsf_channels": "7"},
    "HSF's channels with other names": {"labels_names": json.dumps(NAMES), "hsf_channels": "true"},
    "datasets that are none": {"datasets": "[]"},
    "a dataset that is none": {"datasets": '{"a": 1}'},
    "a dataset without labels": {"datasets": '{"a": {"ca_type": "123"}}'},
    "labels that are none": {
        "datasets": '{"a": {"ca_type": "123", "labels": {"x": "y"}, "labels_names": {}}}'
    },
    "nested datasets": {"datasets": '{"a":' * 50_000},
}


@pytest.mark.parametrize("metadata", METADATA.values(), ids=METADATA.keys())
def test_metadata_that_make_no_sense_are_refused_by_name(metadata, tmp_path):
    """They say which channel is which label."""
    path = write(tmp_path / "odd.onnx", metadata)
    with pytest.raises(ModelError, match=r"odd\.onnx"):
        open_segmenter(str(path))


SHAPES = {
    "a picture": {"sides": ["b", 1, "x", "y"]},
    "two answers": {"outputs": 2},
}


@pytest.mark.parametrize("keys", SHAPES.values(), ids=SHAPES.keys())
def test_a_network_for_something_else_is_refused_by_name(keys, tmp_path):
    """Other inputs or outputs than one image and its probabilities."""
    path = write(tmp_path / "odd.onnx", **keys)
    with pytest.raises(ModelError, match=r"odd\.onnx"):
        open_segmenter(str(path))


@pytest.mark.parametrize("keys", [{"kernel": 3}, {"kernel": 9}, {"sides": ["b", 1, 16, 16, 16]}])
def test_a_network_that_can_not_take_a_crop_says_so(keys, tmp_path):
    """Its answer is smaller than the image, there is none, or it takes one size only."""
    segmenter = open_segmenter(str(write(tmp_path / "odd.onnx", **keys)))
    with pytest.raises(ModelError, match=r"odd\.onnx"):
        segmenter.predictors[0](IMAGE)


def test_weights_in_another_file_are_not_read(tmp_path):
    """ONNX Runtime would read any file of the model's folder."""
    (tmp_path / "secret").write_bytes(bytes(24))
    weight = TensorProto(name="w", dims=[6, 1, 1, 1, 1], data_type=TensorProto.FLOAT)
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="secret")
    path = write(tmp_path / "odd.onnx", weight=weight)
    with pytest.raises(ModelError, match=r"odd\.onnx keeps its weights in a second file"):
        open_segmenter(str(path))


@pytest.mark.parametrize(
    "content", [b"", b"\x08", b"no model", onnx.ModelProto().SerializeToString()]
)
def test_what_is_no_model_is_refused_by_name(content, tmp_path):
    """Cut short, or something else."""
    (tmp_path / "odd.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"odd\.onnx"):
        open_segmenter(str(tmp_path / "odd.onnx"))
