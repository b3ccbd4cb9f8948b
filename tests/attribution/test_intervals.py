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
    with pytest.raises(BadModel, match=r"'layer_norm' in layer 'blocks\.0\.norm1' has no bounds"):
        bounds(adapt(network("transformer")), images(3)[0], radius(), graph=False)
    overlapping = nn.Sequential(nn.Conv2d(2, 2, 3), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(32, 3)).double()
    found = bounds(adapt(overlapping), images(3)[0], radius(), graph=False)
    with pytest.raises(BadModel, match="windows that overlap"):
        found.gradient(Interval(torch.ones(3, 3).double(), torch.ones(3, 3).double()))
    gelu = nn.Sequential(nn.Flatten(), nn.Linear(288, 3), nn.GELU()).double()
    with pytest.raises(BadModel, match="'gelu' in layer '2' has no bounds"):
        bounds(adapt(gelu), images(3)[0], radius(), graph=False)


class Of(nn.Module):
    """An operator on the image itself, and nothing else."""

    def __init__(self, operator) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x):
        return self.operator(x).flatten(1)


def of(operator, inputs, size=0.1):
    return bounds(adapt(Of(operator)), inputs, torch.full_like(inputs, size), graph=False)


COUNTING = torch.tensor([[-3.0, 0.5], [2.0, -1.0]], dtype=torch.float64)
LINEAR = {
    "x + x": (lambda x: x + x, 0.2),
    "x - c": (lambda x: x - COUNTING, 0.1),
    "c - x": (lambda x: COUNTING - x, 0.1),
    "c x": (lambda x: x * COUNTING, 0.1 * COUNTING.abs()),
    "x / c": (lambda x: x / COUNTING, 0.1 / COUNTING.abs()),
    "pad": (lambda x: F.pad(x, (0, 1), value=3.0)[..., :2], 0.1),
}


@pytest.mark.parametrize("name", list(LINEAR))
def test_sums_and_multiples_have_the_bounds_of_their_formula(name):
    operator, width = LINEAR[name]
    inputs = torch.rand(2, 1, 2, 2, dtype=torch.float64)
    found, center = of(operator, inputs).logits, operator(inputs).flatten(1)
    width = torch.as_tensor(width, dtype=torch.float64).expand(2, 2).flatten()
    torch.testing.assert_close(found.low, center - width)
    torch.testing.assert_close(found.high, center + width)


def test_the_gradient_through_constants_of_both_signs_that_share_a_pixel():
    """Two channels of one pixel, times 1 and times -1: the ways back add, they do not cancel."""
    signs = torch.tensor([1.0, -1.0]).double().view(1, 2, 1, 1)
    found = of(lambda x: x * signs, torch.rand(1, 1, 1, 1).double())
    low, high = found.gradient(Interval(-torch.ones(1, 2).double(), torch.ones(1, 2).double()))
    assert (low.item(), high.item()) == (-2.0, 2.0)


COMPARING = {
    "a choice": lambda h: torch.where(h > 0, h, 0.0),
    "a product": lambda h: h * (h > 0),
    "a mask of numbers": lambda h: h + (h > 0).double(),
    "a mask turned round": lambda h: h.masked_fill(~(h > 0), 0.0),
    "an index": lambda h: h.gather(-1, h.argmax(-1, keepdim=True)),
    "places of maxima": lambda h: F.max_unpool2d(*F.max_pool2d(h, 2, return_indices=True), 2),
    "a branch": lambda h: 2 * h if (h > 0).any() else h,
    "constants chosen": lambda h: h + torch.ones_like(h)[h > -9].sum(),
}


@pytest.mark.parametrize("name", list(COMPARING))
def test_what_compares_values_has_no_bounds(name):
    """relu(x - 0.5) at 0.4 can reach 0.4 within 0.5; as a choice by a constant mask it seemed to stay at 0."""
    with pytest.raises(BadModel, match="compares values of the image"):
        of(lambda x: COMPARING[name](x - 0.5), torch.full((1, 1, 2, 2), 0.4).double(), 0.5)


def test_masks_and_choices_that_do_not_hang_on_the_image_stay():
    inputs, kept = torch.rand(1, 1, 2, 2).double(), COUNTING > 0
    found = of(lambda x: torch.where(kept & torch.ones_like(x, dtype=torch.bool), x, 0.0), inputs).logits
    torch.testing.assert_close(found.high, torch.where(kept, inputs + 0.1, 0.0).flatten(1))


UNBOUNDED = {
    "bicubic": (lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), "'interpolate' with negative weights"),
    "one over the image": (lambda x: torch.ones(1).double() / x, "'div' by values of the image"),
    "a rounding division": (lambda x: torch.div(x, 0.3, rounding_mode="floor"), "'div' that rounds"),
    "a falling leaky ReLU": (lambda x: F.leaky_relu(x, -1.0), "'leaky_relu' that falls"),
    "alpha dropout": (lambda x: F.alpha_dropout(x, 0.5, training=True), "'alpha_dropout' in training mode"),
}


@pytest.mark.parametrize("name", list(UNBOUNDED))
def test_operators_that_have_no_bounds_as_they_are_used_are_named(name):
    operator, message = UNBOUNDED[name]
    with pytest.raises(BadModel, match=message):
        of(operator, torch.rand(1, 1, 4, 4).double() - 0.5)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "area"])
def test_other_interpolation_is_a_mean(mode):
    def bigger(x):
        return F.interpolate(x, size=(5, 7), mode=mode)

    inputs = torch.rand(1, 1, 4, 4).double()
    torch.testing.assert_close(of(bigger, inputs).logits.high, bigger(inputs).flatten(1) + 0.1)


def test_a_steep_leaky_relu_has_its_derivatives_in_order():
    low, high = of(lambda x: F.leaky_relu(x, 3.0), torch.zeros(1, 1, 1, 1).double()).gradient(
        Interval(torch.ones(1, 1).double(), torch.ones(1, 1).double())
    )
    assert (low.item(), high.item()) == (1.0, 3.0)


def test_windows_over_the_edge_are_named():
    found = of(lambda x: F.max_pool2d(x, 2, ceil_mode=True), torch.rand(1, 1, 3, 3).double())
    with pytest.raises(BadModel, match="ceil_mode"):
        found.gradient(Interval(torch.ones(1, 4).double(), torch.ones(1, 4).double()))
