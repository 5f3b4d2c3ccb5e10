import pytest
import torch
from torch import nn

from hsf_tune.model.layers import Conv3d, SwitchNorm3d


def textbook_switch_norm(x, weight, bias, mean_weight, var_weight):
    """Luo et al. 2019, equations 3 to 5, without batch statistics; unbiased variance."""
    flat = x.flatten(2)
    mean_in, var_in = flat.mean(2), flat.var(2, unbiased=True)
    mean_ln = mean_in.mean(1, keepdim=True)
    var_ln = (var_in + mean_in**2).mean(1, keepdim=True) - mean_ln**2
    w, v = mean_weight.softmax(0), var_weight.softmax(0)
    mean = (w[0] * mean_in + w[1] * mean_ln)[..., None, None, None]
    var = (v[0] * var_in + v[1] * var_ln)[..., None, None, None]
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def random_norm(channels, dtype=torch.float64):
    norm = SwitchNorm3d(channels).to(dtype)
    generator = torch.Generator().manual_seed(channels)
    for parameter in norm.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator, dtype=dtype) * 0.5
    return norm


@pytest.mark.parametrize("channels", [1, 3, 8])
@pytest.mark.parametrize("offset", [0.0, 100.0], ids=["centred", "far from zero"])
def test_normalisation_equals_the_textbook(channels, offset):
    """float32 agrees to 2e-6 with the textbook in float64."""
    x = torch.randn(2, channels, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    x = (x + offset).float()
    norm = random_norm(channels)
    exact = textbook_switch_norm(x.double(), *norm.parameters())
    found = norm.float()(x)
    # an offset costs digits of the input itself
    torch.testing.assert_close(found.double(), exact, atol=2e-6 * (1 + offset), rtol=0)


@pytest.mark.parametrize("shape", [(1, 4, 3, 4, 2), (2, 3, 2, 2, 3), (2, 1, 2, 3, 2)])
def test_gradient_in_closed_form_is_the_derivative(shape):
    """Finite differences agree, for the input and every weight."""
    norm = random_norm(shape[1])
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    parameters = tuple(norm.parameters())

    def run(x, *values):
        return torch.func.functional_call(norm, dict(zip(names, values, strict=True)), (x,))

    names = [name for name, _ in norm.named_parameters()]
    assert torch.autograd.gradcheck(run, (x, *parameters), atol=1e-6)


def test_constant_input_gives_no_nan():
    """A crop without any contrast, or a single voxel, is normalised to the bias."""
    norm = SwitchNorm3d(3)
    for shape in ((1, 3, 4, 4, 4), (1, 3, 1, 1, 1)):
        x = torch.full(shape, 2.0, requires_grad=True)
        out = norm(x)
        out.sum().backward()
        assert out.abs().max() < 1e-3
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "shape", [(1, 8, 24, 40, 24), (1, 8, 22, 40, 26), (1, 3, 48, 64, 48), (2, 8, 24, 40, 24)]
)
def test_convolution_equals_pytorchs(shape, stride):
    """Cut in halves or not, outputs and gradients are those of torch.nn.Conv3d."""
    torch.manual_seed(0)
    ours = Conv3d(shape[1], 8, 3, stride=stride, padding=1)
    plain = nn.Conv3d(shape[1], 8, 3, stride=stride, padding=1)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(shape)
    results = []
    for layer in (ours, plain):
        image = x.clone().requires_grad_()
        out = layer(image)
        (out * torch.linspace(0.5, 1.5, out.shape[-1])).sum().backward()
        results.append((out, image.grad, layer.weight.grad, layer.bias.grad))
    for found, expected in zip(*results, strict=True):
        scale = float(expected.detach().abs().max())
        torch.testing.assert_close(found, expected, atol=1e-5 * scale, rtol=1e-4)


def test_small_crop_reaches_onednn():
    """The layers of one hippocampal crop do not run on PyTorch's slow path."""
    layer = Conv3d(8, 8, 3, padding=1)
    image = torch.randn(1, 8, 24, 40, 24)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        layer(image)
    called = {event.key for event in profile.key_averages()}
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    assert "aten::mkldnn_convolution" in called
    assert "aten::slow_conv3d_forward" not in called
