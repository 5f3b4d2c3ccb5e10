"""The exported file: its form, its numbers, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import xxhash

from hsf_tune.errors import ModelError
from hsf_tune.export.onnx_file import check_parity, check_structure, open_session, write_onnx
from hsf_tune.model.arunet import Architecture, ARUNet

SMALL = ((1, 16, 24, 16), (2, 16, 16, 24), (1, 24, 16, 32))


def network(f_maps: int = 4, out_channels: int = 5, seed: int = 0) -> ARUNet:
    """A network whose every weight is drawn, so that none equals another."""
    torch.manual_seed(seed)
    result = ARUNet(Architecture(f_maps=f_maps, out_channels=out_channels))
    with torch.no_grad():
        for weight in result.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return result


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[ARUNet, Path]:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    net = network()
    write_onnx(net, path, {"labels": "none"}, SMALL)
    return net, path


@pytest.mark.parametrize("f_maps", [8, pytest.param(64, marks=pytest.mark.slow)])
def test_file_computes_what_pytorch_computes_on_three_shapes(tmp_path: Path, f_maps: int) -> None:
    """Probabilities within 1e-4 and the same label in 99.99 % of the voxels."""
    written = write_onnx(network(f_maps, 8), tmp_path / "model.onnx", {})
    assert len({p.shape for p in written.parity}) == 3
    assert max(p.largest_difference for p in written.parity) <= 1e-4
    assert min(p.same_label for p in written.parity) >= 0.9999


def test_output_is_float32_probabilities_of_every_class(exported: tuple[ARUNet, Path]) -> None:
    """The softmax is inside: classes sum to 1 at every voxel, for any batch and size."""
    probabilities = open_session(exported[1])(np.ones((3, 1, 8, 32, 16), np.float32))
    assert probabilities.shape == (3, 5, 8, 32, 16)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)


def test_file_is_read_by_onnxruntime_1_16(exported: tuple[ARUNet, Path]) -> None:
    """That release takes IR version 9 and opset 19 at most, of the standard operators."""
    model = onnx.load(str(exported[1]), load_external_data=False)
    assert model.ir_version <= 9
    assert [(o.domain, o.version <= 19) for o in model.opset_import] == [("", True)]


def test_nothing_lies_beside_the_file(exported: tuple[ARUNet, Path]) -> None:
    """One self-contained file: no external weights, no temporary file left."""
    assert [p.name for p in exported[1].parent.iterdir()] == ["model.onnx"]


def test_every_weight_keeps_its_name(exported: tuple[ARUNet, Path]) -> None:
    """Initialisers are the state dict, so that the file can serve as a base model."""
    net, path = exported
    found = {
        i.name.removeprefix("_model."): onnx.numpy_helper.to_array(i)
        for i in onnx.load(str(path)).graph.initializer
    }
    expected = net.state_dict()
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value.numpy())


def test_equal_weights_keep_their_names_too(tmp_path: Path) -> None:
    """Freshly initialised normalisations are all alike; none is merged away."""
    net = ARUNet(Architecture(f_maps=4))
    write_onnx(net, tmp_path / "fresh.onnx", {}, SMALL[:1])
    names = {i.name for i in onnx.load(str(tmp_path / "fresh.onnx")).graph.initializer}
    assert names == {f"_model.{name}" for name in net.state_dict()}


def test_checksum_is_that_of_the_file(tmp_path: Path) -> None:
    """HSF deletes a model whose xxh3_64 differs from its configuration."""
    written = write_onnx(network(), tmp_path / "model.onnx", {"note": "ä"}, SMALL[:1])
    assert written.xxh3_64 == xxhash.xxh3_64(written.path.read_bytes()).hexdigest()
    assert open_session(written.path).metadata == {"note": "ä"}


def test_network_is_left_as_it_was(tmp_path: Path) -> None:
    """Exporting changes neither the mode nor the precision of the caller's network."""
    net = network().double().eval()
    write_onnx(net, tmp_path / "model.onnx", {}, SMALL[:1])
    assert not net.training
    assert next(net.parameters()).dtype == torch.float64


@pytest.mark.parametrize("name", ["res-0.7mm.onnx", "my model.onnx", "model.bin"])
def test_names_that_hsf_would_cut_are_refused(tmp_path: Path, name: str) -> None:
    """HSF cuts a name at its first dot, so that two resolutions would collide."""
    with pytest.raises(ModelError, match="letters, digits"):
        write_onnx(network(), tmp_path / name, {}, SMALL[:1])


def test_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    """Whatever lies there stays."""
    path = tmp_path / "model.onnx"
    path.write_text("mine")
    with pytest.raises(ModelError, match="exists"):
        write_onnx(network(), path, {}, SMALL[:1])
    assert path.read_text() == "mine"


def test_other_weights_are_noticed(exported: tuple[ARUNet, Path]) -> None:
    """The comparison can fail: a file of another network is refused with the difference."""
    with pytest.raises(ModelError, match="does not compute what PyTorch computes"):
        check_parity(network(seed=1), exported[1], SMALL)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: setattr(m, "ir_version", 10), "IR version 10"),
        (lambda m: setattr(m.opset_import[0], "version", 21), "ai.onnx 21"),
        (
            lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", 16),
            "dynamic",
        ),
        (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 10), "float32"),
    ],
)
def test_files_that_hsf_could_not_use_are_refused(
    exported: tuple[ARUNet, Path], tmp_path: Path, change: object, sentence: str
) -> None:
    """Newer formats, fixed sizes and half precision are named."""
    model = onnx.load(str(exported[1]))
    change(model)  # type: ignore[operator]
    onnx.save(model, str(tmp_path / "changed.onnx"))
    with pytest.raises(ModelError, match=sentence):
        check_structure(tmp_path / "changed.onnx", 5)


def test_truncated_file_is_refused_in_a_sentence(
    exported: tuple[ARUNet, Path], tmp_path: Path
) -> None:
    """A copy that broke off is not a traceback."""
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(exported[1].read_bytes()[:5000])
    with pytest.raises(ModelError, match="can't be read as an ONNX model"):
        open_session(cut)
