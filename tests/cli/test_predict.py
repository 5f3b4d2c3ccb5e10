"""`scripts/predict.py` on files that no gate has seen: as strict as before training."""

from __future__ import annotations

import gzip
import time

import nibabel as nib
import numpy as np
import pytest

from hsf_tune.cli.commands import run as run_command


@pytest.fixture
def crop(tmp_path):
    """A sound crop, as its uncompressed bytes; write them, changed, to the path that is given."""
    values = np.random.default_rng(0).normal(300, 40, (16, 16, 16)).astype(np.int16)
    return tmp_path / "crop.nii.gz", nib.Nifti1Image(values, np.eye(4)).to_bytes()


@pytest.fixture
def called(capsys, random_base):
    """Run the command on an image; its exit code and what it said on standard error."""

    def call(mri):
        with pytest.raises(SystemExit) as end:
            run_command("predict", [str(random_base), str(mri), "--threads", "1"])
        return end.value.code, capsys.readouterr().err

    return call


def test_a_sound_crop_is_segmented(crop, called, tmp_path):
    """What the others below are made from."""
    path, data = crop
    path.write_bytes(gzip.compress(data))
    assert called(path) == (0, "")
    assert nib.load(tmp_path / "crop_pred.nii.gz").shape == (16, 16, 16)


def _header(data, at, *numbers, kind="<i2"):
    new = np.array(numbers, kind).tobytes()
    return data[:at] + new + data[at + len(new) :]


def _wrong_checksum(data):
    zipped = bytearray(gzip.compress(data))
    zipped[-6] ^= 1
    return bytes(zipped)


SPOILT = {
    "a checksum that is wrong": (_wrong_checksum, "is damaged"),
    "cut short": (lambda d: gzip.compress(d)[:-3000], "is cut short"),
    "cut before its checksum": (lambda d: gzip.compress(d)[:-6], "is cut short"),
    "cut and compressed again": (lambda d: gzip.compress(d[:-100]), "is cut short"),
    "a claim of 8 GB": (lambda d: gzip.compress(_header(d, 40, 3, 1600, 1600, 1600)), "claims 1600"),
    "zeros behind the voxels": (lambda d: gzip.compress(d + bytes(2**25)), "goes on for more"),
    "constant": (lambda d: gzip.compress(d[:352] + bytes(len(d) - 352)), "is constant"),
    "a label map": (
        lambda d: gzip.compress(d[:352] + (b"\0\0" * 7 + b"\1\0") * 512), "looks like a label map",
    ),
    "a slice": (lambda d: gzip.compress(_header(d, 40, 3, 16, 256, 1)), "too small"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "words"), SPOILT.values(), ids=SPOILT.keys())
def test_a_file_that_could_not_train_is_not_segmented(spoil, words, crop, called, tmp_path):
    """By the same reader and the same rules; nothing is written."""
    path, data = crop
    path.write_bytes(spoil(data))
    start = time.perf_counter()
    code, said = called(path)
    assert (code, "Traceback" in said) == (1, False)
    assert words in said
    assert [p.name for p in tmp_path.iterdir()] == ["crop.nii.gz"]
    assert time.perf_counter() - start < 10


def test_a_small_file_that_holds_a_large_volume_is_refused_unread(crop, called):
    """60 kB of one pattern over and over, 40 million voxels of a tenth of a millimetre."""
    path, data = crop
    pattern = np.random.default_rng(1).integers(0, 200, 1000, np.uint8).tobytes()
    head = _header(_header(data[:352], 40, 3, 400, 400, 250), 70, 2, 8)
    path.write_bytes(gzip.compress(_header(head, 80, 0.1, 0.1, 0.1, kind="<f4") + pattern * 40_000))
    assert path.stat().st_size < 250_000
    start = time.perf_counter()
    code, said = called(path)
    assert code == 1
    assert "40,000,000 voxels" in said
    assert time.perf_counter() - start < 5
