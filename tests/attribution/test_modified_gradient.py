"""Guided backpropagation and DeconvNet against a plain way back, written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.attribution import DeconvNet, GuidedBackprop, Saliency
from rightreasons.core import BadModel
from rightreasons.models import adapt
from tests.attribution.lrp.networks import Functional, LeNet, drawn, network
from tests.networks import images


def way_back(net, inputs, target, change):
    """The gradient layer by layer: ``change`` is the way through a ReLU, given what comes back and its input."""
    values = [inputs]
    for module in net:
        values.append(module(values[-1]))
    slopes = torch.zeros_like(values[-1]).scatter(1, target[:, None], 1.0)
    for module, value in zip(reversed(list(net)), reversed(values[:-1]), strict=True):
        if isinstance(module, nn.ReLU):
            slopes = change(slopes, value)
        else:
            leaf = value.detach().requires_grad_()
            (slopes,) = torch.autograd.grad(module(leaf), leaf, slopes)
    return slopes


WAYS = {
    GuidedBackprop: lambda slopes, value: slopes.clamp(min=0) * (value > 0),
    DeconvNet: lambda slopes, value: slopes.clamp(min=0),
}
every_method = pytest.mark.parametrize("method", list(WAYS))


@every_method
def test_it_is_its_way_back_also_in_functions_and_in_place(method):
    net, (inputs, target) = network("lenet"), images()
    expected = way_back(net, inputs, target, WAYS[method])
    for form in (net, Functional(net), in_place(net)):
        with torch.no_grad():
            torch.testing.assert_close(method().per_channel(adapt(form), inputs, target), expected)
    assert not torch.allclose(expected, Saliency().per_channel(adapt(net), inputs, target))


def in_place(net):
    return nn.Sequential(*[nn.ReLU(inplace=True) if isinstance(m, nn.ReLU) else m for m in net])


def test_two_branches_of_one_sum_meet_as_gradients_do():
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.head = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(576, 3)
            self.relu = nn.ReLU()

        def forward(self, x):
            x = self.relu(self.one(x))
            return self.head(self.relu(x + self.other(x)).flatten(1))

    net, (inputs, target) = Residual().double(), images()
    with torch.no_grad():
        below = net.one(inputs)
        middle = below.relu()
        above = middle + net.other(middle)
        for method, change in WAYS.items():
            slopes = change(net.head.weight[target].view(3, 4, 12, 12), above)
            slopes = slopes + F.conv_transpose2d(slopes, net.other.weight)
            expected = F.conv_transpose2d(change(slopes, below), net.one.weight)
            torch.testing.assert_close(method().per_channel(adapt(net), inputs, target), expected)


@every_method
@pytest.mark.parametrize("form", ["functional", "resnet", "spatial"])
def test_a_loss_on_the_map_has_its_right_gradient(method, form):
    model, (inputs, target) = adapt(network(form)), images()
    parameters = list(model.parameters())

    def loss():
        return method()(model, inputs, target).square().sum()

    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True, materialize_grads=True)
    direction = [torch.randn_like(p) for p in parameters]
    found = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
    values = []
    with torch.no_grad():
        for sign in (1, -2, 1):
            for p, d in zip(parameters, direction, strict=True):
                p += sign * 1e-7 * d
            values.append(float(loss()))
    assert found == pytest.approx((values[0] - values[1]) / 2e-7, rel=1e-6)


@every_method
def test_smooth_relatives_of_relu_pass_positive_values_only(method):
    net, (inputs, target) = drawn(LeNet(nn.SiLU)), images()
    found = method()(adapt(net), inputs, target)
    assert not torch.allclose(found, Saliency()(adapt(net), inputs, target))
    hasty = nn.Sequential(*[nn.SiLU(inplace=True) if isinstance(m, nn.SiLU) else m for m in net])
    torch.testing.assert_close(found, method()(adapt(hasty), inputs, target))


@every_method
def test_an_activation_in_place_behind_a_view_counts(method):
    class Behind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head, self.hasty = nn.Conv2d(2, 4, 1), nn.Linear(576, 3), True

        def forward(self, x):
            x = self.first(x)
            if not self.hasty:
                return self.head(x.relu().flatten(1))
            x.view(len(x), -1).relu_()
            return self.head(x.flatten(1))

    net, (inputs, target) = Behind().double(), images()
    hasty = method()(adapt(net), inputs, target)
    net.hasty = False
    torch.testing.assert_close(hasty, method()(adapt(net), inputs, target))


@every_method
def test_a_network_without_activations_is_refused(method):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(288, 3)).double()
    with pytest.raises(BadModel, match="no activation"):
        method()(adapt(linear), *images())
