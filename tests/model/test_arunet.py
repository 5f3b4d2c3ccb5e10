import json
from pathlib import Path

import pytest
import torch

from hsf_tune.errors import ConfigError, ModelError
from hsf_tune.model.arunet import Architecture, ARUNet
from hsf_tune.modes import n_blocks

TINY = Architecture(f_maps=2)
NETWORKS = json.loads((Path(__file__).parent / "fixtures" / "networks.json").read_text())


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case["name"])
def test_output_equals_the_reference_implementation(
    case, draw_network, draw_image, reference_arrays
):
    """With the same weights and input, the class probabilities are the reference's."""
    network = draw_network(Architecture(**case["architecture"])).eval()
    image = draw_image(tuple(case["input"]["shape"]), case["input"]["seed"])
    with torch.no_grad():
        found = network.probabilities(image)[:, :, ::2, ::2, ::2]
    torch.testing.assert_close(
        found, torch.from_numpy(reference_arrays[case["name"]]), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case["name"])
def test_weights_have_the_published_names_and_shapes(case):
    """A published checkpoint fits by name, shape and number of parameters."""
    weights = ARUNet(Architecture(**case["architecture"])).state_dict()
    assert sum(value.numel() for value in weights.values()) == case["n_parameters"]
    if case["shapes"]:
        assert {key: list(value.shape) for key, value in weights.items()} == case["shapes"]


def test_published_size_has_the_published_number_of_parameters():
    """37,483,047 parameters in 191 tensors at f_maps 64."""
    with torch.device("meta"):
        weights = ARUNet(Architecture()).state_dict()
    assert len(weights) == 191
    assert sum(value.numel() for value in weights.values()) == 37_483_047


@pytest.mark.parametrize("shape", [(24, 40, 24), (48, 40, 24), (18, 21, 17), (9, 16, 30)])
def test_fast_paths_of_a_cpu_change_nothing(shape, draw_network, draw_image, monkeypatch):
    """Output and gradients are those of PyTorch's plain operations, whatever the sides."""
    network = draw_network(Architecture(f_maps=8))
    image = draw_image(shape)
    fast = network(image)
    fast.square().mean().backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    network.zero_grad(set_to_none=True)
    monkeypatch.setattr("hsf_tune.model.layers.plain_operations", lambda: True)
    plain = network(image)
    plain.square().mean().backward()
    assert fast.shape == (1, 6, *shape)
    torch.testing.assert_close(fast, plain, atol=2e-4, rtol=1e-4)
    largest = max(p.grad.abs().max() for p in network.parameters())
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(
            gradients[name], parameter.grad, atol=float(largest) * 1e-4, rtol=1e-3, msg=name
        )


def test_batch_gives_each_crop_what_it_gets_alone(draw_network, draw_image):
    """Normalisation never mixes crops."""
    network = draw_network().double()
    first, second = (draw_image((16, 16, 24), seed).double() for seed in (1, 2))
    with torch.no_grad():
        together = network(torch.cat((first, second)))
        alone = torch.cat((network(first), network(second)))
    torch.testing.assert_close(together, alone, atol=1e-9, rtol=1e-9)


def test_checkpointing_gives_the_same_loss_and_gradients(draw_network, draw_image):
    """Computing activations twice changes no number, also with a frozen encoder."""
    results = []
    for checkpointing in (False, True):
        network = draw_network()
        network.checkpointing = checkpointing
        network.encoders.requires_grad_(False)
        network(draw_image((16, 24, 16))).square().mean().backward()
        results.append([p.grad for p in network.parameters()])
    for plain, checkpointed in zip(*results, strict=True):
        assert (plain is None) == (checkpointed is None)
        assert plain is None or torch.equal(plain, checkpointed)


def test_checkpointing_keeps_fewer_activations(draw_network, draw_image):
    """With checkpointing, what autograd saves shrinks to a fraction."""
    saved = []
    for checkpointing in (False, True):
        network = draw_network()
        network.checkpointing = checkpointing
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t
        ):
            network(draw_image((16, 24, 16)))
        saved.append(sum(sizes))
    assert saved[1] < 0.5 * saved[0]


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("encoder", ["encoders.0", "encoders.1", "encoders.2", "encoders.3"]),
        ("decoder", ["decoders.2", "decoders.1", "decoders.0"]),
        (
            "full",
            [f"decoders.{i}" for i in (2, 1, 0)] + [f"encoders.{i}" for i in (3, 2, 1, 0)],
        ),
    ],
)
def test_blocks_come_in_the_order_of_their_opening(mode, names):
    """The encoder opens from the input, the decoder from the output, full from output to input."""
    network = ARUNet(TINY)
    assert [name for name, _ in network.blocks(mode)] == names
    assert all(block is network.get_submodule(name) for name, block in network.blocks(mode))
    assert n_blocks(network.architecture.halves)[mode] == len(names)


def test_blocks_and_final_convolution_hold_every_weight_once():
    """What no block holds is the final convolution, which always trains."""
    network = ARUNet(TINY)
    blocks = [p for _, block in network.blocks("full") for p in block.parameters()]
    assert len(blocks) + len(list(network.final_conv.parameters())) == len(
        list(network.parameters())
    )
    assert len({id(p) for p in blocks}) == len(blocks)


def test_unknown_mode_names_the_valid_ones():
    """A misspelt mode is refused; nothing trains the final convolution only in silence."""
    with pytest.raises(ConfigError, match=r"'encodr'.*Did you mean 'encoder'"):
        ARUNet(TINY).blocks("encodr")


@pytest.mark.parametrize(
    ("values", "named"), [({"layer_order": "gcr"}, "cgs"), ({"f_maps": 0}, "at least 1")]
)
def test_architecture_that_is_not_supported_is_refused(values, named):
    """The error says which order or bound would do."""
    with pytest.raises(ModelError, match=named):
        Architecture(**values)


def test_frozen_prefix_keeps_no_graph(draw_network, draw_image):
    """With only the final convolution trainable, no activation above it is recorded."""
    network = draw_network().requires_grad_(False)
    network.final_conv.requires_grad_(True)
    logits = network(draw_image((8, 8, 16)))
    recorded = [f[0].name() for f in logits.grad_fn.next_functions if f[0] is not None]
    assert len(recorded) == 2  # the final convolution's own weight and bias
    assert all(name.endswith("AccumulateGrad") for name in recorded)


def test_bfloat16_stays_close_to_float32(draw_network, draw_image):
    """Mixed precision rounds activations but keeps statistics in float32."""
    network = draw_network(Architecture(f_maps=8)).eval()
    image = draw_image((16, 24, 16))
    with torch.no_grad():
        exact = network.probabilities(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = network.probabilities(image)
    assert rounded.dtype == torch.float32
    assert (exact - rounded).abs().mean() < 0.01
