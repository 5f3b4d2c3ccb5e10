import json
from pathlib import Path

import pytest
import torch

from hsf_tune.errors import ConfigError
from hsf_tune.model.losses import Loss, focal_tversky, make_loss, project_prediction

CASES = json.loads((Path(__file__).parent / "fixtures" / "losses.json").read_text())
HSF = {1: "DG", 2: "CA1", 3: "CA2", 4: "CA3", 5: "SUB"}
COARSE = {1: "DG", 2: "CA1", 3: "CA2/3", 4: "SUB", 5: "HEAD", 6: "TAIL"}


def loss_of(case, names=None):
    names = names or dict(enumerate(case["names"], start=1))
    forgiving = case["kind"] == "forgiving"
    return make_loss(names, case["ca_type"], forgiving, 6 if forgiving else len(names) + 1)


def inputs_of(case, arrays):
    probabilities = torch.from_numpy(arrays[f"loss{case['case']}_probabilities"])
    return probabilities.log(), torch.from_numpy(arrays[f"loss{case['case']}_target"])


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['kind']}-{c['ca_type']}-{c['case']}")
def test_loss_equals_the_reference_implementation(case, reference_arrays):
    """Both losses, for each ca_type, with and without HEAD and TAIL."""
    logits, target = inputs_of(case, reference_arrays)
    assert loss_of(case)(logits, target).item() == pytest.approx(case["value"], abs=1e-6)


@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == "forgiving"], ids=str)
def test_order_and_case_of_the_labels_do_not_matter(case, reference_arrays):
    """Labels are found by name: numbering them backwards gives the same loss."""
    logits, target = inputs_of(case, reference_arrays)
    n_labels = len(case["names"])
    renamed = {n_labels - i: f" {name.lower()}" for i, name in enumerate(case["names"])}
    backwards = torch.where(target > 0, n_labels + 1 - target.long(), 0)
    found = loss_of(case, renamed)(logits, backwards).item()
    assert found == pytest.approx(case["value"], abs=1e-6)


def test_head_voxels_may_be_any_subfield_and_tail_voxels_ca1_or_subiculum():
    """A crop all HEAD costs the same whichever subfield is predicted; all TAIL, CA1 or SUB."""
    names = {1: "DG", 2: "CA1", 3: "CA2", 4: "CA3", 5: "SUB", 6: "HEAD", 7: "TAIL"}
    loss = make_loss(names, "1/2/3", True, 6)

    def cost(label, channel):
        logits = torch.zeros(1, 6, 4, 4, 4)
        logits[:, channel] = 10
        return loss(logits, torch.full((1, 4, 4, 4), label)).item()

    head = [cost(6, channel) for channel in range(6)]
    assert head[1:] == pytest.approx([head[1]] * 5, abs=1e-5)
    assert head[0] > head[1] + 0.05
    tail = [cost(7, channel) for channel in range(6)]
    assert tail[2] == pytest.approx(tail[5], abs=1e-5)
    assert min(tail[0], tail[1], tail[3], tail[4]) > tail[2] + 0.05


def test_tversky_index_by_hand():
    """One case, two classes: 6 hits, 2 false alarms and 2 misses in each."""
    probabilities = torch.zeros(1, 2, 4, 4, 1)
    truth = torch.zeros(1, 2, 4, 4, 1)
    probabilities[0, 1, :2] = 1  # 8 voxels
    truth[0, 1, :1] = 1
    truth[0, 1, 1, :2] = 1  # 6 of them
    truth[0, 1, 2, :2] = 1  # and 2 others
    probabilities[0, 0], truth[0, 0] = 1 - probabilities[0, 1], 1 - truth[0, 1]
    index = (6 + 1) / (6 + 0.3 * 2 + 0.7 * 2 + 1)
    expected = (1 - index) ** 0.75
    assert focal_tversky(probabilities, truth).item() == pytest.approx(expected, abs=1e-6)


def test_masked_voxels_count_in_nothing():
    """A padded crop has the loss of the crop, whatever stands in the padding."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 7, 6, 5, 4, generator=generator)
    target = torch.randint(0, 7, (2, 6, 5, 4), generator=generator)
    mask = torch.zeros(2, 6, 5, 4, dtype=torch.bool)
    mask[:, :4, :4, :3] = True
    loss = make_loss({i: f"label {i}" for i in range(1, 7)}, "1/2/3", False, 7)
    cut = (slice(None), slice(4), slice(4), slice(3))
    expected = loss(logits[:, :, :4, :4, :3], target[cut])
    assert loss(logits, target, mask).item() == pytest.approx(expected.item(), abs=1e-6)
    assert loss(logits, target).item() != pytest.approx(expected.item(), abs=1e-3)


@pytest.mark.parametrize("forgiving", [False, True])
def test_gradient_is_the_derivative(forgiving):
    """Finite differences agree, with a mask."""
    names = COARSE if forgiving else HSF
    loss = make_loss(names, "1/23", forgiving, 6)
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 6, 3, 2, 2, dtype=torch.float64, generator=generator)
    target = torch.randint(0, len(names) + 1, (2, 3, 2, 2), generator=generator)
    mask = torch.ones(2, 3, 2, 2, dtype=torch.bool)
    mask[0, 0] = False

    def run(logits):
        return loss.of_probabilities(logits.softmax(1), target, mask)

    assert torch.autograd.gradcheck(run, logits.requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e30])
@pytest.mark.parametrize("masked", [False, True], ids=["all voxels", "no voxel"])
def test_loss_and_gradient_are_finite_at_the_extremes(scale, masked):
    """A perfect prediction, huge logits and an empty mask give numbers, not NaN."""
    target = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    target[0, 0] = 2
    logits = scale * torch.nn.functional.one_hot(target.long(), 6).movedim(-1, 1).float()
    logits.requires_grad_()
    mask = torch.zeros_like(target, dtype=torch.bool) if masked else None
    value = make_loss(HSF, "1/2/3", False, 6)(logits, target, mask)
    value.backward()
    assert 0 <= value.item() <= 1
    assert logits.grad.isfinite().all()


def test_loss_of_half_precision_logits_is_taken_in_float32():
    """bfloat16 logits lose their own digits, not the loss's."""
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(1, 6, 8, 8, 8, generator=generator).bfloat16()
    target = torch.randint(0, 6, (1, 8, 8, 8), generator=generator)
    loss = make_loss(HSF, "1/2/3", True, 6)
    value = loss(logits, target)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(logits.double(), target).item(), abs=1e-6)


@pytest.mark.parametrize(
    ("names", "ca_type", "forgiving", "out_channels", "expected"),
    [
        # the user's own labels with HSF's defaults
        (
            dict(enumerate("abcdefg", start=1)),
            "1/23",
            True,
            8,
            r"finetuning.out_channels=8 models.use_forgiving_loss=False",
        ),
        (dict(enumerate("abcdefg", start=1)), "1/23", False, 6, r"finetuning.out_channels=8"),
        ({1: "DG", 2: "CA1", 3: "CA2", 4: "SUB"}, "1/2/3", True, 6, "expects DG, CA1, CA2, CA3"),
        ({1: "DG", 2: "CA1", 3: "CA2/3", 4: "SUB"}, "1/2/3", True, 6, "ca_type '1/2/3'"),
        ({1: "DG", 2: "CA", 3: "SUB", 4: "UNCUS"}, "123", True, 6, "UNCUS"),
        ({1: "DG", 2: "CA", 3: "SUB", 4: "DG"}, "123", True, 6, "each once"),
        ({1: "DG", 2: "CA", 3: "SUB"}, "12/3", True, 6, "Did you mean '1/2/3'"),
        ({1: "DG", 3: "CA", 4: "SUB"}, "123", False, 4, r"\[1, 3, 4\].*1 to 3"),
    ],
)
def test_labels_that_do_not_fit_the_channels_are_refused(
    names, ca_type, forgiving, out_channels, expected
):
    """Each error names the keys to set."""
    with pytest.raises(ConfigError, match=expected):
        make_loss(names, ca_type, forgiving, out_channels)


@pytest.mark.parametrize(
    ("names", "ca_type", "expected"),
    [
        (HSF, "1/2/3", [0.05, 0.1, 0.2, 0.15, 0.3, 0.2]),
        (COARSE, "1/23", [0.05, 0.1, 0.2, 0.45, 0.2, 0, 0]),
        ({1: "sub", 2: "head", 3: "CA1-3", 4: "dg"}, "123", [0.05, 0.2, 0, 0.65, 0.1]),
    ],
)
def test_projection_merges_channels_into_the_datasets_own_labels(names, ca_type, expected):
    """CA fields are added as the dataset merges them; HEAD and TAIL are never predicted."""
    channels = torch.tensor([0.05, 0.1, 0.2, 0.15, 0.3, 0.2]).view(1, 6, 1, 1, 1)
    found = project_prediction(channels.expand(2, 6, 2, 3, 1), ca_type, names)
    assert found.shape == (2, len(names) + 1, 2, 3, 1)
    torch.testing.assert_close(found[1, :, 1, 2, 0], torch.tensor(expected))


def test_loss_survives_pickling():
    """A loss can travel to a worker."""
    import pickle

    loss: Loss = pickle.loads(pickle.dumps(make_loss(COARSE, "1/23", True, 6)))
    logits, target = torch.randn(1, 6, 4, 4, 4), torch.randint(0, 7, (1, 4, 4, 4))
    assert loss(logits, target) == make_loss(COARSE, "1/23", True, 6)(logits, target)
