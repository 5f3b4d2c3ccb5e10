"""Where scripts/try_hsf.py works; what hsf makes of a head is in tests/export/test_hsf.py."""

from __future__ import annotations

import pytest

from scripts import try_hsf


def test_the_exported_folder_survives_work_beside_it(tmp_path):
    """--to may be the folder that holds the models; each call works in a folder of its own."""
    model = tmp_path / "mine" / "mine.onnx"
    model.parent.mkdir()
    model.touch()
    first, second = (try_hsf.fresh_folder(tmp_path, "mine") for _ in range(2))
    assert model.exists()
    assert first.parent == second.parent == tmp_path
    assert len({first, second, model.parent}) == 3


def test_an_interpreter_that_somebody_else_may_have_planted_is_not_run(tmp_path):
    """A folder that others can write is no place for an environment."""
    venv = tmp_path / "hsf-venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text("#!/bin/sh\nexit 0\n")
    venv.chmod(0o777)
    with pytest.raises(SystemExit, match="not yours alone"):
        try_hsf.hsf_python(venv)
