"""Turn a network's output into one row a case, label and metric.

The same rows come out for a trial's validation, the unchanged base, the test set and a
prediction on new images. Padding is cut off first; what the metrics mean is
`model.metrics`' business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from hsf_tune.config import Config, DatasetConfig
from hsf_tune.data.cases import Case
from hsf_tune.data.store import Store, StoredCase
from hsf_tune.model.labels import free_labels
from hsf_tune.model.losses import make_loss, project_prediction
from hsf_tune.model.metrics import overlap_scores, surface_scores
from hsf_tune.model.network import Network
from hsf_tune.records import Score

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def case_losses(config: Config) -> dict[str, Loss]:
    """The loss of each dataset: plain, or forgiving where its labels are coarser.

    Raises:
        ConfigError: labels and `finetuning.out_channels` don't fit together.
    """
    return {
        name: make_loss(
            dict(dataset.labels_names),
            dataset.ca_type,
            config.models.use_forgiving_loss,
            config.models.out_channels,
        )
        for name, dataset in config.datasets.datasets.items()
    }


def predict_labels(logits: Tensor, dataset: DatasetConfig, forgiving: bool) -> Tensor:
    """Most probable label of each voxel, in the dataset's own labels.

    Args:
        logits: (B, C, X, Y, Z).

    Returns:
        (B, X, Y, Z) uint8 in [0, N]; in forgiving mode the network's CA channels are merged
        to what the dataset tells apart.
    """
    if not forgiving:
        return logits.argmax(1).to(torch.uint8)
    probabilities = torch.softmax(logits.float(), 1)
    merged = project_prediction(probabilities, dataset.ca_type, dict(dataset.labels_names))
    return merged.argmax(1).to(torch.uint8)


def score_case(
    logits: Tensor,
    stored: StoredCase,
    config: Config,
    dataset_name: str,
    case_id: str,
    subject: str,
    surface: bool = False,
) -> tuple[list[Score], np.ndarray]:
    """Scores of one case and its prediction on the unpadded RAS+ grid.

    Args:
        logits: (1, C, X, Y, Z), padded as the stored case is.
        surface: also surface Dice, HD95 and ASSD, which cost more than the rest.

    Returns:
        One Score a label and metric, and the (X, Y, Z) uint8 prediction.
    """
    dataset = config.datasets.datasets[dataset_name]
    forgiving = config.models.use_forgiving_loss
    predicted = predict_labels(logits, dataset, forgiving)[0].cpu().numpy()
    prediction, reference = predicted[stored.crop], np.asarray(stored.labels)[stored.crop]
    names = dataset.labels_names
    ignore = free_labels(names) if forgiving else ()
    found = overlap_scores(
        prediction, reference, len(names), stored.spacing_mm, ignore_labels=ignore
    )
    if surface:
        tolerance = config.verdict.surface_tolerance_mm
        distances = surface_scores(
            prediction,
            reference,
            len(names),
            stored.spacing_mm,
            tolerance_mm=tolerance,
            ignore_labels=ignore,
        )
        found = {label: {**found[label], **distances.get(label, {})} for label in found}
    rows = [
        Score(subject, case_id, names[label], metric, float(value))
        for label, metrics in found.items()
        for metric, value in metrics.items()
    ]
    return rows, prediction


@torch.inference_mode()
def evaluate(
    network: Network,
    store: Store,
    cases: Sequence[Case],
    config: Config,
    *,
    device: torch.device | str = "cpu",
    precision: str = "32-true",
    surface: bool = False,
    keep: Callable[[Case, np.ndarray], None] | None = None,
) -> list[Score]:
    """Score a network on cases, one at a time.

    Args:
        network: put into evaluation mode and moved to `device`.
        keep: called with each case and its (X, Y, Z) uint8 prediction.
    """
    network.eval().to(device)
    scores: list[Score] = []
    for case in cases:
        stored = store.load(case.id)
        image = torch.from_numpy(np.array(stored.image))[None].to(device)
        with autocast(device, precision):
            logits = network(image)
        rows, prediction = score_case(
            logits.float(), stored, config, case.dataset, case.id, case.subject, surface
        )
        scores.extend(rows)
        if keep is not None:
            keep(case, prediction)
    return scores


def autocast(device: torch.device | str, precision: str) -> AbstractContextManager[object]:
    """The context in which Lightning runs the same precision."""
    kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    if precision not in kinds:
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=kinds[precision])
