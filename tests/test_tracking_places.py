"""Where MLflow's files go, and how soon it is said that they can't."""

from __future__ import annotations

import time

import pytest

from hsf_tune.config import TrackingConfig
from hsf_tune.errors import TrackingError
from hsf_tune.tracking import MlflowTracker
from hsf_tune.tracking.store import MlflowStore


@pytest.mark.parametrize("name", ["a?b", "a%41 b", "a#b"])
def test_signs_in_the_working_directorys_name_send_no_file_elsewhere(name, tmp_path, monkeypatch):
    """Database and artifacts lie in the folder whose name looks like part of an address."""
    here = tmp_path / name
    here.mkdir()
    monkeypatch.chdir(here)
    store = MlflowStore(TrackingConfig(), here / "run", "run", nested=True)
    store.connect()
    run = store.client.create_run(store._experiment)
    (here / "figure.txt").write_text("x")
    store.client.log_artifact(run.info.run_id, "figure.txt")
    assert (here / "mlflow.db").exists()
    assert list(here.glob("mlruns/*/artifacts/figure.txt"))
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "make", [lambda p: p.write_bytes(b"no database at all" * 99), lambda p: p.mkdir()]
)
def test_an_unusable_database_is_named_at_once(make, tmp_path, monkeypatch):
    """MLflow itself would try for a minute, and not say why."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "mlflow.db")
    began_s = time.monotonic()
    with pytest.raises(TrackingError, match=r"mlflow\.db can't be used: .*(not a data|open)"):
        MlflowTracker(TrackingConfig(), tmp_path / "run").check_reachable()
    assert time.monotonic() - began_s < 30


def test_a_server_that_is_away_is_named_without_its_password(tmp_path):
    """The error comes from libraries that hold the whole address."""
    uri = "http://ann:s3cret@127.0.0.1:9"
    with pytest.raises(TrackingError) as error:
        MlflowTracker(TrackingConfig(uri=uri), tmp_path / "run").check_reachable()
    assert "127.0.0.1:9" in str(error.value)
    assert "s3cret" not in str(error.value)
