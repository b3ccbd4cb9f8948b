"""The whole method: what it equals, what it conserves, and that it can be trained through."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.attribution import ATTRIBUTIONS, InputXGradient
from rightreasons.attribution.lrp import (
    COMPOSITES,
    LRP,
    ByOperator,
    DeepTaylor,
    Epsilon,
    Gamma,
    NotConserved,
    ZBox,
)
from rightreasons.attribution.tape.linear_map import LinearMap
from rightreasons.core import BadModel
from rightreasons.models import adapt
from tests.attribution.lrp import networks
from tests.attribution.lrp.networks import NETWORKS, drawn, network
from tests.networks import images
from tests.networks import network as contract_network

every_composite = pytest.mark.parametrize("composite", list(COMPOSITES))
every_network = pytest.mark.parametrize("name", list(NETWORKS))
ZERO = LRP({"name": "epsilon", "epsilon": 0.0})


def close(found, expected, tolerance: float = 1e-10):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.detach().abs().max()))


@every_composite
@every_network
def test_the_gradient_of_a_loss_on_the_map_agrees_with_central_differences(name, composite):
    model, (inputs, target) = adapt(network(name)), images()
    method, parameters = LRP(composite), list(model.parameters())
    mix = torch.randn(3, 2, 12, 12, dtype=torch.float64)

    def loss():
        heatmap = method.per_channel(model, inputs, target)
        return (heatmap * mix).sum() + heatmap.square().sum()

    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True, materialize_grads=True)
    direction = [torch.randn_like(p) for p in parameters]
    found = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
    # The stabilizer bends the map on its own scale, 1e-6, so that a step has to be smaller where a sum is near zero.
    expected = [central_difference(loss, parameters, direction, step) for step in (1e-6, 1e-7, 1e-8)]
    assert min(abs(found - e) / abs(e) for e in expected) < 1e-6, (found, expected)


def central_difference(loss, parameters, direction, step):
    values = []
    with torch.no_grad():
        for sign in (1, -2, 1):
            for p, d in zip(parameters, direction, strict=True):
                p += sign * step * d
            values.append(float(loss()))
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("name", ["lenet", "functional", "batch_norm", "resnet"])
def test_lrp_zero_of_a_relu_network_is_the_input_times_its_gradient(name):
    model, (inputs, target) = adapt(network(name)), images()
    with torch.no_grad():
        close(ZERO.per_channel(model, inputs, target), InputXGradient().per_channel(model, inputs, target))


@every_composite
def test_functions_and_modules_give_the_same_map(composite):
    (inputs, target), written = images(), [network("lenet"), network("functional")]
    maps = [LRP(composite).per_channel(adapt(net), inputs, target) for net in written]
    close(*maps)


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus", "epsilon_plus_flat", "epsilon_gamma_box"])
@pytest.mark.parametrize("name", ["lenet", "batch_norm", "resnet"])
def test_without_biases_the_pixels_get_the_whole_logit(name, composite):
    net, (inputs, target) = network(name), images()
    for module in net.modules():
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
        if hasattr(module, "running_mean"):
            module.running_mean.zero_()
    model = adapt(net)
    with torch.no_grad():
        logits = model(inputs)[range(3), target]
        total = LRP(composite)(model, inputs, target).sum((1, 2, 3))
    close(total, logits, 1e-3)


@every_composite
@every_network
def test_what_does_not_reach_the_pixels_is_accounted_for(name, composite):
    model, (inputs, target) = adapt(network(name)), images()
    account = LRP(composite).conservation(model, inputs, target)
    with torch.no_grad():
        assert account.logits == pytest.approx(float(model(inputs)[range(3), target].sum()))
    assert account.pixels + account.absorbed == pytest.approx(account.logits, abs=1e-9)
    assert account.missing < 1e-9
    LRP(composite, check=True, tolerance=1e-9)(model, inputs, target)


def test_a_leak_is_found_and_named(monkeypatch):
    model, (inputs, target) = adapt(network("lenet")), images()
    right = LinearMap.back
    monkeypatch.setattr(LinearMap, "back", lambda self, *a: right(self, *a) * (1.01 if self.axes == 2 else 1))
    with pytest.raises(NotConserved, match=r"operator conv2d: 0.0.* of it is missing"):
        LRP(check=True)(model, inputs, target)
    LRP()(model, inputs, target)
    monkeypatch.setattr(LinearMap, "back", lambda self, *a: right(self, *a) * float("nan"))
    with pytest.raises(NotConserved, match="nan of it"):
        LRP(check=True)(model, inputs, target)


def test_a_standardization_hands_pixels_their_relevance_whole_and_moves_the_box():
    net, (inputs, target) = network("lenet"), images()
    mean, std = torch.tensor([0.4, 0.5]).view(1, 2, 1, 1), torch.tensor([0.2, 0.3]).view(1, 2, 1, 1)
    ahead = adapt(net, mean=(0.4, 0.5), std=(0.2, 0.3))
    standardized = (inputs - mean) / std
    for composite in ("epsilon_plus_flat", "epsilon"):
        close(LRP(composite)(ahead, inputs, target), LRP(composite)(adapt(net), standardized, target))
    one = nn.Conv2d(2, 3, 12).double()
    flat = adapt(nn.Sequential(one, nn.Flatten()), layer="0", mean=(0.4, 0.5), std=(0.2, 0.3))
    low, high = ((torch.full_like(inputs, bound) - mean) / std for bound in (0.0, 1.0))
    w = one.weight[target]
    parts = standardized * w - low * w.clamp(min=0) - high * w.clamp(max=0)
    total = parts.sum((1, 2, 3), keepdim=True)
    logits = flat(inputs).gather(1, target[:, None]).view(-1, 1, 1, 1)
    found = LRP("epsilon_gamma_box").per_channel(flat, inputs, target)
    assert total.min() > 0
    close(found, parts / (total + 1e-6) * logits)


def test_pixels_below_zero_count_as_such():
    net, (inputs, target) = nn.Sequential(nn.Conv2d(2, 3, 12), nn.Flatten()).double(), images()
    inputs = inputs - 0.6
    with torch.no_grad():
        parts = (inputs * net[0].weight[target]).clamp(min=0)
        logits, bias = net(inputs)[range(3), target], net[0].bias[target].clamp(min=0)
        expected = parts * (logits / (parts.sum((1, 2, 3)) + bias + 1e-6)).view(-1, 1, 1, 1)
        close(LRP("epsilon_plus").per_channel(adapt(net, layer="0"), inputs, target), expected)


def test_rules_of_single_layers_by_name():
    net, (inputs, target) = network("lenet"), images()
    model = adapt(net)
    chosen = LRP("epsilon_plus", layers={"0": {"name": "z_box", "low": -1.0}, "3": Gamma(gamma=0.5), "6": "epsilon"})
    assert chosen.layers["0"] == ZBox(low=-1.0)
    other = LRP(ByOperator(convolution=Gamma(gamma=0.5), first=ZBox(low=-1.0)))
    assert torch.equal(chosen(model, inputs, target), other(model, inputs, target))
    assert not torch.equal(chosen(model, inputs, target), LRP()(model, inputs, target))
    with pytest.raises(BadModel, match="no layer named 'conv9'"):
        LRP(layers={"conv9": "flat"})(model, inputs, target)
    with pytest.raises(BadModel, match="'1' runs no operator with a weight"):
        LRP(layers={"1": "flat"})(model, inputs, target)
    with pytest.raises(BadModel, match="z_box rule is for a layer that reads the image"):
        LRP(layers={"3": "z_box"})(model, inputs, target)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_settings_are_names_and_numbers_or_objects():
    assert LRP({"name": "epsilon_gamma_box", "low": -1.0}) == LRP(COMPOSITES["epsilon_gamma_box"](low=-1.0))
    assert "gamma=0.25" in repr(LRP("epsilon_gamma_box"))
    assert hash(LRP()) == hash(LRP())
    for bad, message in (
        ({"composite": "epsilon_plsu"}, "Did you mean"),
        ({"composite": {"gamma": 1.0}}, "expected a name"),
        ({"composite": {"name": "epsilon_plus", "gamma": 1.0}}, "unexpected keyword"),
        ({"tolerance": 0.0}, "tolerance above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            LRP(**bad)
    assert ATTRIBUTIONS["lrp"] is LRP


@pytest.mark.wrong_types
def test_a_class_is_no_rule():
    with pytest.raises(ValueError, match="no relevance rule"):
        LRP(layers={"0": Epsilon})


def test_deep_taylor_is_z_plus_with_the_box_and_never_negative_for_a_positive_logit():
    model, (inputs, target) = adapt(network("lenet")), images()
    heatmap = DeepTaylor()(model, inputs, target)
    assert torch.equal(heatmap, LRP("deep_taylor")(model, inputs, target))
    sign = model(inputs).gather(1, target[:, None]).sign().view(-1, 1, 1, 1)
    assert (heatmap * sign >= 0).all()
    with pytest.raises(ValueError, match="low below high"):
        DeepTaylor(low=1.0, high=0.0)


def test_batch_norm_is_folded_exactly():
    """Folded by hand, with its eps, the network is the same function and has the same map."""
    net, (inputs, target) = network("batch_norm"), images()
    by_hand = copy.deepcopy(net)
    for part, pairs in ((by_hand.features, ((0, 1), (4, 5))), (by_hand.head, ((1, 2),))):
        for at, norm in pairs:
            layer, batch_norm = part[at], part[norm]
            scale = batch_norm.weight.data / (batch_norm.running_var + batch_norm.eps).sqrt()
            bias = 0 if layer.bias is None else layer.bias.data
            layer.weight.data = layer.weight.data * scale.view(-1, *(1,) * (layer.weight.ndim - 1))
            layer.bias = nn.Parameter((bias - batch_norm.running_mean) * scale + batch_norm.bias.data)
            part[norm] = nn.Identity()
    close(by_hand(inputs), net(inputs))
    for composite in ("epsilon", "epsilon_plus", "epsilon_gamma_box", "epsilon_alpha2_beta1"):
        close(LRP(composite)(adapt(net), inputs, target), LRP(composite)(adapt(by_hand), inputs, target))


def test_a_transposed_grouped_convolution_is_folded_too():
    layer, norm = nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)
    net = drawn(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), layer, norm, nn.ReLU(), nn.Flatten(), nn.Linear(864, 3)))
    inputs, target = images()
    close(ZERO(adapt(net), inputs, target), InputXGradient()(adapt(net), inputs, target))


class Doubled(torch.autograd.Function):
    """Twice a convolution, with a backward that nobody should follow."""

    @staticmethod
    def forward(ctx, image, weight, bias):
        return 2 * F.conv2d(image, weight, bias, padding=1)

    @staticmethod
    def backward(ctx, slopes):
        return None, None, None


class Custom(nn.Module):
    def __init__(self, inner: nn.Module, custom: bool) -> None:
        super().__init__()
        self.inner, self.custom = inner, custom

    def forward(self, x):
        first = self.inner[0]
        x = Doubled.apply(x, first.weight, first.bias) if self.custom else 2 * first(x)
        return nn.Sequential(*self.inner)[1:](x.detach() if self.custom else x)


def test_a_custom_function_and_a_detach_are_seen_as_what_they_compute_also_by_the_graph():
    net, (inputs, target) = network("lenet"), images()
    plain, custom = adapt(Custom(net, custom=False)), adapt(Custom(net, custom=True))
    leaf = inputs.clone().requires_grad_()
    maps = [LRP()(model, leaf, target) for model in (plain, custom)]
    assert torch.equal(*maps)
    for tensors in ([leaf], list(net.parameters())):
        slopes = [torch.autograd.grad(m.square().sum(), tensors, retain_graph=True) for m in maps]
        for one, other in zip(*slopes, strict=True):
            close(one, other)
    assert all(slope.abs().sum() > 0 for slope in slopes[0])


def test_mixed_precision_is_left_out():
    model, (inputs, target) = adapt(network("lenet").float()), images(dtype=torch.float32)
    expected = LRP()(model, inputs, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(LRP()(model, inputs, target), expected)


def test_attention_by_torchs_own_function_and_written_out_are_the_same():
    net, (inputs, target) = contract_network("transformer"), images()
    expected = LRP("epsilon")(adapt(net), inputs, target)

    def written_out(query, key, value):
        return (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(dim=-1) @ value

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", written_out)
        found = LRP("epsilon")(adapt(net), inputs, target)
    close(found, expected, 1e-4)  # what is written out passes two stabilizers more


def test_twice_the_same_map_and_no_memory_kept():
    model, (inputs, target) = adapt(networks.network("resnet")), images()
    first = LRP()(model, inputs, target)
    assert torch.equal(first, LRP()(model, inputs, target))
    assert all(p.grad is None for p in model.parameters())
