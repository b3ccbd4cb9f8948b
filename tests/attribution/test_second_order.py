"""A pass made for a derivative of its gradient against the plain pass."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.attribution import ExpectedGradients, SmoothGrad
from rightreasons.attribution.score import explained, gradient
from rightreasons.attribution.second_order import TwiceDifferentiated
from rightreasons.models import adapt
from tests.networks import images, network

NETWORKS = ["relu", "softplus", "batch_norm", "residual", "pooled"]


def slopes(model, inputs, target, score):
    trace = model.trace(inputs)
    return gradient(explained(trace.logits, target, score), trace.inputs, graph=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("score", ["logit", "sum_log_probabilities"])
@pytest.mark.parametrize("net", NETWORKS)
def test_a_gradient_and_its_derivative_are_those_of_the_plain_pass(net, score, dtype):
    model, (inputs, target) = adapt(network(net).to(dtype)), images(3)
    inputs = inputs.to(dtype, memory_format=torch.channels_last)
    found = []
    for made in (False, True):
        if made:
            with TwiceDifferentiated():
                values = slopes(model, inputs, target, score)
        else:
            values = slopes(model, inputs, target, score)
        weights = list(model.parameters())
        value = (values * torch.arange(values.numel()).view_as(values).sin()).square().sum()
        found.append((values, *torch.autograd.grad(value, weights, allow_unused=True, materialize_grads=True)))
    close = {} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 1e-5}
    for plain, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, **close)


SETTINGS = [
    {"stride": 2},
    {"padding": 1, "dilation": 2},
    {"groups": 2},
    {"padding": "same"},
    {"padding": "same", "kernel_size": 2},
    {"bias": False, "padding_mode": "circular", "padding": 1},
]


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")
@pytest.mark.parametrize("settings", SETTINGS)
def test_any_convolution(settings):
    torch.manual_seed(0)
    first = nn.Conv2d(2, 4, **{"kernel_size": 3, **settings}).double()
    inputs = torch.rand(2, 2, 6, 6, dtype=torch.float64, requires_grad=True)

    def of(made):
        values = F.max_pool2d(first(inputs).relu(), 2, stride=1)
        (found,) = torch.autograd.grad(values.square().sum(), inputs, create_graph=True)
        if made is not None:
            made.__exit__(None, None, None)
        return torch.autograd.grad(found.square().sum(), list(first.parameters()))

    plain, opened = of(None), TwiceDifferentiated()
    opened.__enter__()
    for expected, found in zip(plain, of(opened), strict=True):
        torch.testing.assert_close(found, expected)


def test_what_is_no_number_stays_none():
    with TwiceDifferentiated():
        values = F.relu(torch.tensor([-1.0, torch.nan, -torch.inf, torch.inf]))
    assert values[1].isnan()
    assert values[[0, 2, 3]].tolist() == [0, 0, torch.inf]


@pytest.mark.parametrize("method", [SmoothGrad(samples=2), ExpectedGradients(torch.rand(3, 2, 12, 12), samples=2)])
def test_maps_are_the_same_with_and_without_a_graph(method):
    model, (inputs, target) = adapt(network("relu").float()), images(3)
    found = method(model, inputs.float(), target)
    with torch.no_grad():
        expected = method(model, inputs.float(), target)
    assert found.requires_grad
    torch.testing.assert_close(found.detach(), expected)
