"""What training minimises: the focal Tversky loss, and its forgiving form for coarser labels.

Targets are label indices, so that each voxel has exactly one label. Which channels a
label stands for is decided in `labels.py`; this module turns it into numbers. Padding is left out
through a mask.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hsf_tune.errors import ConfigError
from hsf_tune.model.labels import Merging, count_labels, find_merging

SPACE = (2, 3, 4)  # the spatial axes of (B, C, X, Y, Z)
ALPHA, BETA, GAMMA, SMOOTH = 0.3, 0.7, 0.75, 1.0  # as HSF was trained


class Loss:
    """The loss of one dataset: `loss(logits, target, mask=None) -> scalar`.

    Make it with `make_loss`, which checks that labels and channels fit together.
    """

    def __init__(self, n_labels: int, merging: Merging | None = None) -> None:
        self.merging = merging
        labels = range(n_labels + 1) if merging is None else merging.scored
        allowed = [(k,) for k in labels] if merging is None else merging.allowed
        # (labels, classes): 1 where a voxel of that label may be of that class
        self._allowed = torch.tensor([[float(c in ok) for c in labels] for ok in allowed])

    def __call__(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            logits: (B, C, X, Y, Z), before the softmax.
            target: (B, X, Y, Z) label indices in [0, N], of any integer type.
            mask: (B, X, Y, Z), True where a voxel counts; None where all do.

        Returns:
            A scalar in [0, 1], float32.
        """
        return self.of_probabilities(logits.float().softmax(dim=1), target, mask)

    def of_probabilities(
        self, probabilities: Tensor, target: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """The same from (B, C, X, Y, Z) class probabilities."""
        if self.merging is not None:
            probabilities = _merge(probabilities, self.merging, self.merging.scored)
        truth = self._allowed.to(probabilities.device)[target.long()].movedim(-1, 1)
        if mask is not None:
            truth = truth * mask[:, None]
            probabilities = probabilities * mask[:, None]
        return focal_tversky(probabilities, truth)


def make_loss(
    labels_names: Mapping[int, str], ca_type: str, forgiving: bool, out_channels: int
) -> Loss:
    """The loss of a dataset, if its labels fit the network's channels.

    Args:
        labels_names: label 1..N -> name.
        ca_type: how far the dataset tells CA1, CA2 and CA3 apart; only the forgiving loss reads it.
        forgiving: HSF's five subfields on the network's side, whatever the dataset merges; else
            channel k is label k.
        out_channels: the network's channels, background included.

    Raises:
        ConfigError: channels and labels can't fit together.
    """
    n_labels = count_labels(labels_names)
    if not forgiving:
        if out_channels != n_labels + 1:
            raise ConfigError(
                f"finetuning.out_channels is {out_channels}, but the dataset has {n_labels} labels "
                f"({', '.join(labels_names.values())}), and with models.use_forgiving_loss=False "
                "there must be one channel a label and one for the background: give "
                f"finetuning.out_channels={n_labels + 1}."
            )
        return Loss(n_labels)
    if out_channels != Merging.n_channels:
        raise ConfigError(
            f"finetuning.out_channels is {out_channels}, but the forgiving loss is for HSF's five "
            f"subfields and the background, 6 channels. The dataset has {n_labels} labels "
            f"({', '.join(labels_names.values())}): give finetuning.out_channels={n_labels + 1} "
            "models.use_forgiving_loss=False, or finetuning.out_channels=6 where they are HSF's "
            "subfields."
        )
    return Loss(n_labels, find_merging(labels_names, ca_type))


def focal_tversky(probabilities: Tensor, truth: Tensor) -> Tensor:
    """(1 - mean Tversky index)^gamma over cases and classes, the background among them.

    Args:
        probabilities: (B, C, X, Y, Z).
        truth: (B, C, X, Y, Z), 1 where the class is right; several classes may be.

    Returns:
        A scalar. Its gradient is 0, not infinite, at a perfect overlap.

    Source: Abraham and Khan 2018, doi:10.48550/arXiv.1810.07842; the mean is taken before the
    power, as HSF was trained.
    """
    hit = (probabilities * truth).sum(dim=SPACE)
    false_alarm = probabilities.sum(dim=SPACE) - hit
    missed = truth.sum(dim=SPACE) - hit
    tversky = (hit + SMOOTH) / (hit + ALPHA * false_alarm + BETA * missed + SMOOTH)
    return (1 - tversky.mean()).clamp_min(1e-7).pow(GAMMA)


def project_prediction(
    probabilities: Tensor, ca_type: str, labels_names: Mapping[int, str]
) -> Tensor:
    """Probabilities of a dataset's own labels from those of HSF's channels.

    CA2 and CA3 are added for "1/23", all three CA fields for "123". HEAD and TAIL get probability
    0: the network never predicts them, and the metrics leave out the voxels that a reference labels
    so.

    Args:
        probabilities: (B, 6, X, Y, Z).
        ca_type: "1/2/3", "1/23" or "123".
        labels_names: label 1..N -> name.

    Returns:
        (B, N + 1, X, Y, Z), in the order of the dataset's labels; sums to 1 over them.

    Raises:
        ConfigError: the labels are not those of `ca_type`.
    """
    merging = find_merging(labels_names, ca_type)
    return _merge(probabilities, merging, tuple(range(len(merging.channels))))


def _merge(probabilities: Tensor, merging: Merging, labels: tuple[int, ...]) -> Tensor:
    groups = [merging.channels[label] for label in labels]
    if groups == [(k,) for k in range(probabilities.shape[1])]:
        return probabilities
    return torch.stack([probabilities[:, list(group)].sum(dim=1) for group in groups], dim=1)
