"""Log exported models on the run they come from, and register them.

Each becomes a version of `hsf-finetuned`; the alias `best` points to the one exported last
(of a bag, to its first). The files stay what they are: MLflow gets copies.
"""

from __future__ import annotations

import importlib.metadata
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hsf_tune.config import TrackingConfig
from hsf_tune.credentials import redacted
from hsf_tune.errors import TrackingError
from hsf_tune.installed import typed
from hsf_tune.model.onnx_weights import load_onnx
from hsf_tune.tracking.store import SQLITE, MlflowStore, database_path

MODEL, ALIAS = "hsf-finetuned", "best"
_EXAMPLE_SIDE = 16  # voxels of the input example


@dataclass(frozen=True)
class Registered:
    """A registered model: `mlflow.onnx.load_model(uri)` loads it."""

    name: str
    version: int
    alias: str
    run_id: str

    @property
    def uri(self) -> str:
        return f"models:/{self.name}@{self.alias}"


def register(
    config: TrackingConfig, run_folder: Path, models: Sequence[Path], exported: Path
) -> Registered:
    """Log ONNX files on a run's parent (or only) run and register them.

    Args:
        run_folder: the run that the models come from.
        models: one file, or those of a bag.
        exported: the folder that HSF uses, noted as a tag.

    Returns:
        The version that the alias points to now.

    Raises:
        TrackingError: MLflow can't be reached, or has no run of this search.
    """
    run_folder = run_folder.resolve()
    try:
        return _register(config, run_folder, models, exported)
    except TrackingError:
        raise
    except Exception as error:
        first = (redacted(str(error)).strip().splitlines() or [type(error).__name__])[0][:200]
        raise TrackingError(
            f"The models are exported, but not registered: MLflow at {config.uri} can't be used"
            f" ({first}). Start it and export again, or leave it: --no-tracking."
        ) from error


def _register(
    config: TrackingConfig, run_folder: Path, models: Sequence[Path], exported: Path
) -> Registered:
    _require_database(config.uri, run_folder)
    store = MlflowStore(config, run_folder, run_folder.name, nested=True)
    store.connect()
    run_id = store.find_main_run()
    if run_id is None:
        raise _no_run(config.uri, run_folder)
    with _pointed_at(store.client) as mlflow:
        versions = [
            _log_one(mlflow, path, run_id, {"export_folder": str(exported), "of": str(len(models))})
            for path in models
        ]
    store.client.set_registered_model_alias(MODEL, ALIAS, str(versions[0]))
    return Registered(MODEL, versions[0], ALIAS, run_id)


def _log_one(mlflow: Any, path: Path, run_id: str, tags: dict[str, str]) -> int:
    """Log one file with signature and input example; the version that it became."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    model = load_onnx(path)
    kind = np.dtype(np.float32)
    channels = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    free = (-1, -1, -1)
    signature = ModelSignature(
        Schema([TensorSpec(kind, (-1, 1, *free), model.graph.input[0].name)]),
        Schema([TensorSpec(kind, (-1, channels, *free), model.graph.output[0].name)]),
    )
    side = _EXAMPLE_SIDE
    example = np.random.default_rng(0).standard_normal((1, 1, side, side, side)).astype(np.float32)
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # chatter; errors come out
        warnings.simplefilter("ignore")
        info = mlflow.onnx.log_model(
            model,
            name=path.stem,
            signature=signature,
            input_example={model.graph.input[0].name: example},
            registered_model_name=MODEL,
            await_registration_for=None,
            pip_requirements=[
                f"{name}=={importlib.metadata.version(name)}"
                for name in ("mlflow", "onnx", "onnxruntime")
            ],
            onnx_execution_providers=["CPUExecutionProvider"],
            save_as_external_data=False,
            tags=tags,
            run_id=run_id,
        )
    return int(info.registered_model_version)


@contextmanager
def _pointed_at(client: Any) -> Iterator[Any]:
    """MLflow's module-wide functions at the client's server, and back again afterwards."""
    import mlflow
    import mlflow.onnx

    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(client.tracking_uri)
    mlflow.set_registry_uri(client._registry_uri)
    try:
        yield mlflow
    finally:
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])


def _require_database(uri: str, run_folder: Path) -> None:
    """Exporting must not create an empty database beside the one that holds the run."""
    if uri.startswith(SQLITE) and not database_path(uri).exists():
        raise _no_run(uri, run_folder)


def _no_run(uri: str, run_folder: Path) -> TrackingError:
    return TrackingError(
        f"The models are exported, but not registered: MLflow at {uri} has no run of"
        f" {run_folder.name}. Send it there first: {typed('sync-mlflow', str(run_folder))}; a"
        " relative address is relative to the working directory."
    )
