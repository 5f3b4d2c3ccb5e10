"""From what a user names (a file, an exported folder, a run) to networks that segment.

ONNX files run in ONNX Runtime, as in HSF; PyTorch weights in PyTorch, on a GPU where there
is one. Both look the same from outside: a function from crops to probabilities.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from hsf_tune.config import Config, config_from_dict
from hsf_tune.errors import ConfigError, ModelError
from hsf_tune.export.labels import LabelSet, json_object, label_set
from hsf_tune.export.onnx_file import Session, open_session
from hsf_tune.finetuning.finished import best_weights, choose_bag, open_run
from hsf_tune.finetuning.predict import Predictor
from hsf_tune.model.network import Network
from hsf_tune.model.weights import build_network, load_base
from hsf_tune.run_folder import RunFolder

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Segmenter:
    """Networks that segment together, and what their channels mean.

    Attributes:
        config: holds the datasets' labels and how predictions are compared with references.
        about: a line for the user.
    """

    predictors: tuple[Predictor, ...]
    labels: LabelSet
    config: Config
    about: str

    def merged(self, probabilities: Array) -> Array:
        """(C, X, Y, Z) probabilities of the channels to those of the outputs, background first."""
        return np.stack([probabilities[group].sum(axis=0) for group in self.labels.groups])

    def to_labels(self, probabilities: Array) -> Array:
        """(C, X, Y, Z) probabilities to (X, Y, Z) uint8 values, as HSF writes them."""
        return self.merged(probabilities).argmax(axis=0).astype(np.uint8)


def open_segmenter(source: str) -> Segmenter:
    """Load what segments.

    Args:
        source: an .onnx, .safetensors or .ckpt file, a published model's name, a folder of
            .onnx files, which are averaged, or the folder of a finished run.

    Raises:
        ModelError: nothing is there that segments.
    """
    path = Path(source).expanduser()
    if RunFolder(path).is_run:
        return _of_run(path)
    if path.is_dir():
        files = sorted(path.glob("*.onnx"))
        if not files:
            raise ModelError(
                f"{path} holds neither .onnx files nor a run. Expected a model file, a folder that an"
                " export has written, or the folder of a finished run, outputs/NAME."
            )
        return _of_onnx(files)
    if path.suffix == ".onnx":
        if not path.exists():
            raise ModelError(f"{path} does not exist. Expected a model, or a folder with models.")
        return _of_onnx([path])
    return _of_weights(source)


def reference_metadata(config: Config) -> dict[str, str]:
    """What an ONNX file must carry so that its predictions can be scored against references."""
    plain = {
        name: {
            "ca_type": d.ca_type,
            "labels": {str(k): v for k, v in d.labels.items()},
            "labels_names": {str(k): v for k, v in d.labels_names.items()},
        }
        for name, d in config.datasets.datasets.items()
    }
    return {"datasets": json.dumps(plain)}


def _of_run(path: Path) -> Segmenter:
    run = open_run(path)
    best = best_weights(run)
    exported = run.files.is_export(best)
    bag = [] if exported else [m.path for m in choose_bag(run.models_of(run.saved.strategy))]
    files = bag or [best]
    networks = tuple(_torch_predictor(_network(file)) for file in files)
    trained = "trained on every subject" if exported else f"{len(files)} fold models"
    about = f"{run.name}: {trained}"
    return Segmenter(networks, label_set(run.config), run.config, about)


def _of_weights(source: str) -> Segmenter:
    weights = load_base(source)
    n = weights.architecture.out_channels
    names = dict(weights.labels_names or {k: f"label {k}" for k in range(1, n)})
    network = build_network(weights, n)
    labels = LabelSet(names, "1/2/3", False)
    config = _config({}, labels)
    return Segmenter((_torch_predictor(network),), labels, config, f"{weights.name}: 1 network")


def _of_onnx(files: list[Path]) -> Segmenter:
    providers = [
        p
        for p in ("CUDAExecutionProvider", "CPUExecutionProvider")
        if p in onnxruntime.get_available_providers()
    ]
    sessions = [open_session(file, providers) for file in files]
    channels = {s.out_channels for s in sessions}
    if len(channels) > 1:
        counts = ", ".join(
            f"{f.name} {s.out_channels}" for f, s in zip(files, sessions, strict=True)
        )
        raise ModelError(
            f"{files[0].parent} holds models with different numbers of channels ({counts}), which"
            " can't segment together. Keep each kind in a folder of its own."
        )
    first: Session = sessions[0]
    try:
        labels = LabelSet.from_metadata(first.metadata, first.out_channels)
        config = _config(first.metadata, labels)
    except (ConfigError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{files[0]} says of its labels what makes no sense ({error}); expected the metadata"
            " that an export writes, or none. Export the model again."
        ) from error
    about = f"{', '.join(f.name for f in files)}: {len(files)} network(s) in ONNX Runtime"
    return Segmenter(tuple(sessions), labels, config, about)


def _config(metadata: Mapping[str, str], labels: LabelSet) -> Config:
    """As much of a configuration as scoring needs, from what a file says about itself."""
    own: dict[str, Any] = {
        "model": {
            "ca_type": "1/2/3",
            "labels": {k: k for k in labels.channels},
            "labels_names": dict(labels.channels),
        }
    }
    datasets: dict[str, Any] = json_object(metadata["datasets"]) if "datasets" in metadata else own
    pattern = {"any": {"mri": "*", "label": "*"}}
    n = len(labels.channels) + 1
    return config_from_dict(
        {
            "datasets": {
                "main_path": ".",
                "datasets": {
                    name: {
                        "path": ".",
                        "patterns": pattern,
                        "ca_type": d["ca_type"],
                        "labels": {int(k): v for k, v in d["labels"].items()},
                        "labels_names": {int(k): v for k, v in d["labels_names"].items()},
                    }
                    for name, d in datasets.items()
                },
            },
            "models": {"use_forgiving_loss": labels.hsf_channels, "out_channels": n},
            "finetuning": {"out_channels": n},
        }
    )


def _network(path: Path) -> Network:
    weights = load_base(path)
    return build_network(weights, weights.architecture.out_channels)


def _torch_predictor(network: Network) -> Predictor:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.eval().to(device)

    def run(image: Array) -> Array:
        with torch.inference_mode():
            found: Array = network.probabilities(torch.from_numpy(image).to(device)).cpu().numpy()
        return found

    return run
