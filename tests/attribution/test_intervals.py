"""Bounds hold for every point of the box, and are exact where they can be."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.attribution.intervals import Interval, bounds
from rightreasons.core import BadModel
from rightreasons.models import adapt
from tests.networks import SIDE, images, network

NETS = ["relu", "softplus", "batch_norm", "residual", "pooled"]


def radius(count=3, size=0.05):
    box = torch.zeros(count, 1, SIDE, SIDE, dtype=torch.float64)
    box[..., 2:9, 1:7] = size
    return box


def points(inputs, box, count=40):
    generator = torch.Generator().manual_seed(1)
    for k in range(count):
        draw = torch.rand(inputs.shape, generator=generator, dtype=inputs.dtype) * 2 - 1
        yield inputs + box * (draw if k % 2 else draw.sign())


@pytest.mark.parametrize("net", NETS)
def test_no_point_of_the_box_leaves_the_bounds(net):
    model, (inputs, _), box = adapt(network(net), mean=(0.5,), std=(0.3,)), images(3), radius()
    found = bounds(model, inputs, box, graph=False).logits
    assert (found.low < found.high).all()
    for point in points(inputs, box):
        logits = model(point).detach()
        assert (logits >= found.low - 1e-12).all()
        assert (logits <= found.high + 1e-12).all()


@pytest.mark.parametrize("net", NETS)
def test_a_box_of_no_width_is_a_pass(net):
    model, (inputs, _) = adapt(network(net)), images(3)
    found = bounds(model, inputs, torch.zeros(3, 1, SIDE, SIDE, dtype=torch.float64), graph=False)
    torch.testing.assert_close(found.logits.low, model(inputs).detach())
    torch.testing.assert_close(found.logits.high, model(inputs).detach())


@pytest.mark.parametrize("net", NETS)
def test_no_gradient_in_the_box_leaves_its_bounds(net):
    model, (inputs, target), box = adapt(network(net)), images(3), radius(size=0.02)
    found = bounds(model, inputs, box, graph=False)
    seed = F.one_hot(target, 3).double()
    low, high = found.gradient(Interval(seed, seed))
    for point in points(inputs, box):
        leaf = point.requires_grad_()
        (slope,) = torch.autograd.grad((model(leaf) * seed).sum(), leaf)
        assert (slope >= low - 1e-12).all()
        assert (slope <= high + 1e-12).all()
    point = inputs.requires_grad_()
    (slope,) = torch.autograd.grad((model(point) * seed).sum(), point)
    low, high = bounds(model, inputs, 1e-12 * box, graph=False).gradient(Interval(seed, seed))
    torch.testing.assert_close(low.detach(), slope, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(high.detach(), slope, rtol=1e-6, atol=1e-9)


def test_on_a_linear_network_bounds_are_exact():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    inputs, box = torch.rand(1, 1, 2, 2, dtype=torch.float64), torch.full((1, 1, 2, 2), 0.1, dtype=torch.float64)
    found = bounds(adapt(net), inputs, box, graph=False)
    width = 0.1 * net[1].weight.abs().sum(1)
    torch.testing.assert_close(found.logits.high - found.logits.low, 2 * width[None])
    seed = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    low, high = found.gradient(Interval(seed, seed))
    torch.testing.assert_close(low.flatten(), net[1].weight[0])
    torch.testing.assert_close(high.flatten(), net[1].weight[0])


def test_what_has_no_bounds_is_named():
    with pytest.raises(BadModel, match="'layer_norm' has no bounds"):
        bounds(adapt(network("transformer")), images(3)[0], radius(), graph=False)
    overlapping = nn.Sequential(nn.Conv2d(2, 2, 3), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(32, 3)).double()
    found = bounds(adapt(overlapping), images(3)[0], radius(), graph=False)
    with pytest.raises(BadModel, match="windows that overlap"):
        found.gradient(Interval(torch.ones(3, 3).double(), torch.ones(3, 3).double()))
    gelu = nn.Sequential(nn.Flatten(), nn.Linear(288, 3), nn.GELU()).double()
    with pytest.raises(BadModel, match="'gelu' has no bounds"):
        bounds(adapt(gelu), images(3)[0], radius(), graph=False)
